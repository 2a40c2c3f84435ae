"""What is tried before training: each kind of file, and the first checkpoint."""

import pytest

from nin_jax import UserError
from nin_jax.errors import RunError
from nin_jax.runs import manifest, save_check, workdir, writers
from nin_jax.runs.checkpoint import Checkpoints, SaveError
from nin_jax.runs.fit import fit


def failing(*_, **__):
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (Checkpoints, "save"),
        (Checkpoints, "restore"),
        (writers.JsonlWriter, "write"),
        (writers.TensorBoardWriter, "write"),
        (manifest, "write_json"),
    ],
    ids=str,
)
def test_a_folder_that_cannot_hold_a_run_is_refused(config, monkeypatch, place, name):
    monkeypatch.setattr(place, name, failing)
    with pytest.raises(UserError, match=r"cannot hold a run: .*\(Input/output error\)"):
        fit(config)
    assert [path.name for path in config.workdir.iterdir()] == [workdir.LOCK]


def test_a_run_whose_first_checkpoint_cannot_be_saved_ends_before_it_trains(config, monkeypatch):
    save = Checkpoints.save

    def full(self, state, position):
        if "metrics_bytes" in position:  # the run's own checkpoint, larger than the trial's
            raise SaveError("No space left on device")
        return save(self, state, position)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full)
        with pytest.raises(RunError, match=r"can be saved \(No space left on device\): make room"):
            fit(config)
    assert (config.workdir / workdir.METRICS).read_bytes() == b""


def test_a_name_that_looks_like_mathematics_is_a_title(tmp_path):
    save_check._files(tmp_path / "trial", "net$^$: 16x16x1")
