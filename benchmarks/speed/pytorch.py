"""The PyTorch side, in the ways that its documentation recommends."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import nin_torch_ref
from benchmarks.speed.work import LEARNING_RATE, TORCH, Call, Work

if TYPE_CHECKING:
    from nin_jax.models.stages import Stage
    from nin_jax.models.variants import Variant


def torch_call(
    work: Work,
    *,
    channels_last: bool,
    compiled: bool = False,
    cuda_graphs: bool = False,
    inference: bool = True,
) -> Call:
    """Build PyTorch's training step or prediction, in one of the recommended ways."""
    model, device = create_model(work, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.from_numpy(work.images().transpose(0, 3, 1, 2).astype(np.float32) / 255)
    images = images.to(device).contiguous(memory_format=layout)
    labels = torch.from_numpy(work.labels().astype(np.int64)).to(device)
    half = work.precision == "bfloat16"

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=half)

    mode = "reduce-overhead" if cuda_graphs else "default"
    if work.task == "predict":
        model.eval()
        forward = torch.compile(model, mode=mode) if compiled else model

        def predict() -> np.ndarray:
            with torch.inference_mode(inference), autocast():
                return forward(images).detach().float().cpu().numpy()

        return predict
    model.train()
    kind = nin_torch_ref.Muon if work.optimizer == "muon" else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=LEARNING_RATE, momentum=work.momentum)
    forward = torch.compile(model, mode=mode) if compiled else model

    def train() -> None:
        with autocast():
            logits = forward(images)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        finish(device)

    return train


def create_model(
    work: Work, channels_last: bool, **options: Any
) -> tuple[torch.nn.Module, torch.device]:
    """Return the network in training mode and its device, a GPU if there is one.

    Args:
        work: names the network and its sizes.
        channels_last: the layout of its memory.
        options: further arguments of `nin_torch_ref.create_model`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":  # as JAX does by default
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if channels_last else torch.contiguous_format
    architecture = nin_torch_ref.ARCHITECTURES.get(work.variant)
    if architecture is None:
        from nin_jax.models.variants import get_variant  # brings JAX; see `work`

        architecture = architecture_of(get_variant(work.variant))
    model = nin_torch_ref.create_model(
        architecture,
        in_channels=work.in_channels,
        num_classes=work.num_classes,
        image_size=work.sides,
        **options,
    )
    return model.to(device).to(memory_format=layout), device  # pyright: ignore[reportCallIssue]


def finish(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def architecture_of(variant: "Variant") -> nin_torch_ref.Architecture:
    """Return a variant in the notation of the reference."""
    stages, blocks = variant.stages, (*variant.stages, variant.head)
    widths = [_widths(block) for block in blocks]
    return nin_torch_ref.Architecture(
        tuple((w[0], b.kernel, b.stride, b.padding) for w, b in zip(widths, blocks, strict=True)),
        tuple(
            tuple((width, *pair) for width, pair in zip(w[1:], b.mlp, strict=True))
            for w, b in zip(widths, blocks, strict=True)
        ),
        tuple(astuple(stage.pool) if stage.pool else None for stage in stages),
        variant.classifier,
        variant.dropout,
        tuple(stage.dropout for stage in stages),
    )


def _widths(stage: "Stage") -> list[int | None]:
    """Return the channels of each convolution; None for the number of classes."""
    if isinstance(stage.channels, tuple):
        return [*stage.channels, None][: 1 + len(stage.mlp)]
    return [stage.channels] * (1 + len(stage.mlp))


def rivals(work: Work) -> dict[str, Callable[[], Call]]:
    """Return functions that build PyTorch's contenders, by name; the fastest is the best rival.

    In bfloat16 each is there twice: with autocast, and without it, named "..., float32".
    """
    found: dict[str, Callable[[], Call]] = {
        "torch eager NCHW": lambda: torch_call(work, channels_last=False),
        TORCH: lambda: torch_call(work, channels_last=True),
        "torch.compile channels_last": lambda: torch_call(work, channels_last=True, compiled=True),
    }
    if torch.cuda.is_available():
        found["torch.compile channels_last, CUDA graphs"] = lambda: torch_call(
            work, channels_last=True, compiled=True, cuda_graphs=True
        )
    if work.precision == "bfloat16":
        exact = rivals(replace(work, precision="float32"))
        found |= {f"{name}, float32": build for name, build in exact.items()}
    return found


def predict_with_gradients(work: Work) -> Call:
    """Build a prediction without ``no_grad``, which keeps every activation for a backward pass.

    This is a mistake and no rival, but the exercise's published figure was measured this way.
    """
    return torch_call(work, channels_last=True, inference=False)
