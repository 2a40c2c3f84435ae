"""What a user waits for: a whole epoch, data included, and the first step after a start."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import nin_torch_ref
from benchmarks.speed import pytorch
from benchmarks.speed.work import LEARNING_RATE, OURS, Row, Work
from nin_jax.data.datasets import Dataset as NinDataset
from nin_jax.data.datasets import Split
from nin_jax.runs.preparation import RunSpec, epoch_order, make_feed, prepare_run
from nin_jax.training.config import TrainConfig
from nin_jax.training.recipes import Recipe

TRAIN = Path(__file__).resolve().parent.parent.parent / "scripts" / "train.py"


class _Pictures(Dataset):
    """The published pipeline: torchvision's Resize on the PIL image, then ToTensor."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, size: tuple[int, int]):
        self.images, self.labels, self.size = images, labels, size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.images[index, :, :, 0])
        height, width = self.size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image))[None]  # [1, H, W]
        return pixels.to(torch.float32).div(255), int(self.labels[index])


def torch_epoch(
    work: Work, images: np.ndarray, labels: np.ndarray, *, channels_last: bool, workers: int
) -> Callable[[], None]:
    """Return an epoch of the published training loop.

    A shuffling DataLoader with worker processes, SGD, and the loss read after each step.
    """
    model, device = pytorch.create_model(work, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bfloat16")
    pictures = _Pictures(images, labels, work.sides)

    def epoch() -> None:
        loader = DataLoader(pictures, work.batch_size, shuffle=True, num_workers=workers)
        for x, y in loader:
            x = x.to(device).contiguous(memory_format=layout)
            with autocast:
                nin_torch_ref.train_step(model, optimizer, x, y.to(device)).item()

    return epoch


def nin_jax_epoch(
    work: Work, images: np.ndarray, labels: np.ndarray, **options: Any
) -> Callable[[], None]:
    """Return our epoch: images to the device, order, every step, and the losses at the end.

    Args:
        work: the training step.
        images: uint8 [N, H, W, C].
        labels: int32 [N].
        options: of `TrainConfig`, in place of their defaults.
    """
    dataset = NinDataset(
        name="benchmark",
        source="memory",
        checksum="",
        class_names=tuple(map(str, range(10))),
        train=Split(images, labels),
        test=Split(images[:1], labels[:1]),
    )
    recipe = Recipe(lr=LEARNING_RATE, batch_size=work.batch_size, image_size=work.image_size)
    config = TrainConfig(variant=work.variant, precision=work.precision, devices=1, **options)
    run = prepare_run(RunSpec(config, recipe, dataset))
    epochs = 0

    def epoch() -> None:
        nonlocal epochs
        order, figures = epoch_order(run, epochs), []
        for chunk in make_feed(run).chunks(order, epochs * run.steps_per_epoch):
            for done in range(0, chunk.steps, run.steps_per_dispatch):
                count = min(run.steps_per_dispatch, chunk.steps - done)
                figures.append(run.take_steps(chunk, count))
        jax.device_get(figures)
        jax.block_until_ready(run.state.params)
        epochs += 1

    return epoch


def first_step(variant: str, batch_size: int, image_size: int) -> Iterator[Row]:
    """Time `scripts/train.py` from its start to its first step.

    Yields:
        A row for a start with an empty compilation cache, then one for a second start.

    Raises:
        RuntimeError: the run printed no first step; the message is its last line.
    """
    options = ["--dataset", "digits", "--image-size", image_size, "--batch-size", batch_size]
    options += ["--limit-train", batch_size, "--limit-test", 1, "--epochs", 1]
    with tempfile.TemporaryDirectory() as scratch:
        for start in ("cold", "cached"):
            given = ["--variant", variant, *options, "--workdir", Path(scratch, start)]
            environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(Path(scratch, "cache"))}
            seconds = _seconds_to_first_step([*map(str, given)], environment)
            yield {
                "benchmark": "startup",
                "variant": variant,
                "batch_size": batch_size,
                "image_size": image_size,
                "contender": OURS,
                "start": start,
                "first_step_seconds": round(seconds, 2),
            }


def _seconds_to_first_step(options: list[str], environment: dict[str, str]) -> float:
    command = [sys.executable, str(TRAIN), *options]
    start, seconds = time.perf_counter(), None
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if seconds is None and line.startswith("first step"):
                seconds = time.perf_counter() - start
        errors = process.stderr.read().strip()
    if seconds is None:
        raise RuntimeError(errors.splitlines()[-1] if errors else "no first step")
    return seconds
