"""A small run to disturb, and its comparison with an undisturbed one."""

import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from benchmarks.soak.small_run import TIMES, differences
from nin_jax.runs import workdir
from nin_jax.training.config import TrainConfig
from tests.conftest import SCRIPTS, TINY_TOML

STEPS, EPOCHS = 3, 2  # steps per epoch


def config_in(folder: Path) -> TrainConfig:
    """Return a configuration with dropout, augmentation and a checkpoint after every step."""
    (folder / "tiny.toml").write_text(TINY_TOML)
    return TrainConfig(
        variant=str(folder / "tiny.toml"),
        recipe="modern",
        dataset="digits",
        image_size=16,
        batch_size=50,
        epochs=EPOCHS,
        limit_train=120,
        limit_test=30,
        augment="flip_shift",
        checkpoint_every="1",
        workdir=folder / "run",
    )


def command_of(config: TrainConfig, *options: str) -> list[str]:
    """Return the command line of scripts/train.py that trains the same network in a process."""
    command = [sys.executable, str(SCRIPTS / "train.py"), "--variant", config.variant]
    command += ["--dataset", "digits", "--image-size", "16", "--workdir", str(config.workdir)]
    return [*command, *options]


def events_of(folder):
    """Return step and names of every event's values, without times."""
    (path,) = (folder / workdir.TENSORBOARD).iterdir()
    events = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
    return [
        (event.step, {v.tag for v in event.summary.value if v.tag.split("/")[1] not in TIMES})
        for event in events
    ]


def assert_same(folder, other):
    """Check that weights, rows, summary and events are equal to the bit, except for times."""
    assert differences(folder, other) == []
    assert events_of(folder) == events_of(other)
