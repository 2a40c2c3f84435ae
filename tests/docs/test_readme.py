"""The README is a promise: its code runs, and its table is what the commands print."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import nin_jax
from nin_jax.models.variants import variant_from_dict

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_in_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = nin_jax.convert.to_torch(nin_jax.create_model("nin15", seed=1))
    names = {"state_dict": weights}
    for block in blocks("python"):
        exec(block, names)
    saved = nin_jax.convert.load_safetensors(tmp_path / "nin15.safetensors")
    assert all((saved[name] == value).all() for name, value in weights.items())


def test_the_toml_in_it_is_the_variant_beside_it():
    (toml,), (python, *_) = blocks("toml"), blocks("python")
    names = {}
    exec(python, names)
    assert variant_from_dict({"name": "mine", **tomllib.loads(toml)}) == names["mine"]


def test_the_table_of_costs_is_what_report_prints(script):
    printed = script("report", "--all", "--format", "markdown").out
    assert printed.strip() in README


def test_the_table_of_conventions_is_what_report_prints(script):
    counts = json.loads(script("report", "--all", "--in-channels", "3", "--format", "json").out)
    conventions = counts[0]["conventions"]
    names = {"MACs": "macs", "FLOPs": "flops", "ptflops": "ptflops_pytorch", "XLA": "xla"}
    rows = re.findall(r"^\| (\w+) \| ([\d,]+) \| [^|]+ \|$", README, re.MULTILINE)
    found = {names.get(name, name): int(count.replace(",", "")) for name, count in rows}
    assert found.keys() == {"macs", "flops", "thop", "fvcore", "ptflops_pytorch", "xla"}
    assert found == {key: conventions[key]["count"] for key in found}


def test_the_studys_figures_are_those_of_its_page():
    page = (ROOT / "benchmarks" / "results" / "study" / "study.md").read_text(encoding="utf-8")
    section = README[README.index("## The study") : README.index("## Speed")]
    figures = re.findall(r"(0\.\d{4})\s±\s(0\.\d{4})", section)
    assert len(figures) == 5
    for mean, deviation in figures:
        assert f"{mean} ± {deviation}" in page
    assert "multiply-adds 2.96 times" in page


def test_every_variant_is_described():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| [^|]*\|$", README, re.MULTILINE)
    described = [name.strip("`") for row in rows for name in row.split(", ")]
    assert described == nin_jax.list_variants()


@pytest.mark.parametrize("name", re.findall(r"python (scripts/\w+\.py)", README))
def test_its_scripts_explain_themselves(name, script):
    outcome = script(Path(name).stem, "--help")
    assert outcome.code == 0
    assert "--" in outcome.out


def test_the_commands_for_several_devices_run(tmp_path):
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    section = README[README.index("## More than one device") : README.index("## If a run dies")]
    (block,) = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    commands = block.splitlines()
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 1/1") == 1
    assert len(list(tmp_path.glob("runs/*/summary.json"))) == 3
