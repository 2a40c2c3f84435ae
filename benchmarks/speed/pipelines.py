"""The whole job that a user waits for: an epoch of training, data included."""

from collections.abc import Callable

import jax
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import nin_torch_ref
from benchmarks.speed.work import LEARNING_RATE, Work
from nin_jax.data import transforms
from nin_jax.data.datasets import Dataset as NinDataset
from nin_jax.data.datasets import Split
from nin_jax.runs.preparation import prepare_run
from nin_jax.training.config import Recipe, TrainConfig


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
    work: Work, images: np.ndarray, labels: np.ndarray, channels_last: bool, workers: int
) -> Callable[[], None]:
    """The published training loop: a shuffling DataLoader with workers, SGD, loss read a step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = nin_torch_ref.create_model(work.variant, image_size=work.sides)
    model = model.to(device).to(memory_format=layout).train()  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    pictures = _Pictures(images, labels, work.sides)

    def epoch() -> None:
        loader = DataLoader(pictures, work.batch_size, shuffle=True, num_workers=workers)
        for x, y in loader:
            x = x.to(device).contiguous(memory_format=layout)
            nin_torch_ref.train_step(model, optimizer, x, y.to(device)).item()

    return epoch


def nin_jax_epoch(work: Work, images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Our epoch: images to the device, order, and every step; the sums read at the end."""
    dataset = NinDataset(
        name="benchmark",
        source="memory",
        checksum="",
        class_names=tuple(map(str, range(10))),
        train=Split(images, labels),
        test=Split(images[:1], labels[:1]),
    )
    recipe = Recipe(lr=LEARNING_RATE, batch_size=work.batch_size, image_size=work.image_size)
    config = TrainConfig(variant=work.variant, precision=work.precision)
    run = prepare_run(config, recipe, dataset)
    make_order = jax.jit(transforms.epoch_order, static_argnums=(2, 3))
    epochs = 0

    def epoch() -> None:
        nonlocal epochs
        train = jax.device_put((images, labels))
        order = make_order(run.state.key, epochs, len(labels), work.batch_size)
        done, sums = 0, []
        while missing := run.steps_per_epoch - done:
            count = min(missing, run.steps_per_dispatch)
            run.state, new = run.train_steps(run.state, *train, order, np.int32(count))
            sums.append(new)
            done += count
        jax.device_get(sums)
        jax.block_until_ready(run.state.params)
        epochs += 1

    return epoch
