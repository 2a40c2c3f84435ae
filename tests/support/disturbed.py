"""A small run to be disturbed, and whether it ended as one that was left alone."""

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from benchmarks.soak.small_run import TIMES, differences
from nin_jax.runs import workdir
from nin_jax.training.config import TrainConfig
from tests.conftest import TINY_TOML

STEPS, EPOCHS = 3, 2  # steps an epoch


def config_in(folder: Path) -> TrainConfig:
    """Dropout and augmentation are on; a checkpoint after every step."""
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


def events_of(folder):
    """Step and names of every event's values, times aside."""
    (path,) = (folder / workdir.TENSORBOARD).iterdir()
    events = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
    return [
        (event.step, {value.tag for value in event.summary.value} - set(TIMES)) for event in events
    ]


def assert_same(folder, other):
    """Weights, rows, summary and events, to the bit; times aside."""
    assert differences(folder, other) == []
    assert events_of(folder) == events_of(other)
