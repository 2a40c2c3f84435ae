"""Memory of the contenders, each in a process of its own. No measured value is asserted."""

import subprocess
import sys
from pathlib import Path

from benchmarks.speed import jobs, output
from benchmarks.speed.probe import measure
from benchmarks.speed.work import OURS, Work

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_process_of_a_rival_does_not_import_jax():
    """JAX would count in the memory of PyTorch's process."""
    code = "import sys, benchmarks.speed.probe, benchmarks.speed.pytorch as p\n"
    code += "from benchmarks.speed.work import Work\n"
    code += "p.torch_call(Work('predict', 'nin', 1, 67), channels_last=True)()\n"
    code += "sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_least_memory_of_a_rival_is_compared_with_ours(plan, monkeypatch):
    peaks = {OURS: 100, "torch eager NCHW": 300, "torch eager channels_last": 200}
    monkeypatch.setattr(
        jobs.probe, "measure", lambda work, name: {"peak_resident_bytes": peaks[name] * 2**20}
    )
    rows = list(jobs.memory(plan))
    assert [row["contender"] for row in rows] == 2 * list(peaks)
    assert [row["peak_resident_mib"] for row in rows] == 2 * list(peaks.values())
    for row in rows[::3]:
        assert (row["best_rival"], row["best_rival_over_ours"]) == ("torch eager channels_last", 2)
    assert "best rival / ours" in output.as_text(rows, {}, "")


def test_the_probe_reports_what_fails():
    assert "too small" in measure(Work("predict", "nin", 1, 20), OURS)["error"]
