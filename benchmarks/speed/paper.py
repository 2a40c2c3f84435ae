"""What a training step costs on paper: nothing here imports a framework."""

import numpy as np

from benchmarks.speed.work import Work
from nin_jax.models.geometry import trace
from nin_jax.models.variants import get_variant


def image_cost(work: Work) -> tuple[float, float]:
    """FLOPs and least bytes moved of one image's training step, counted on paper.

    FLOPs: 2 a MAC, three times over: forward, input gradient, weight gradient (the first layer
    has no input gradient). Bytes: each activation is written and read going forward, and going
    back read again, its gradient written and read twice (by both gradients): 6 passes.
    """
    layers = trace(get_variant(work.variant), work.in_channels, work.num_classes, work.sides)
    macs = sum(layer.macs for layer in layers)
    first = next(layer.macs for layer in layers if layer.macs)
    width = 2 if work.precision == "bfloat16" else 4
    activations = sum(int(np.prod(layer.out_shape)) for layer in layers)
    return 2.0 * (3 * macs - first), 6.0 * width * activations


def parameters(work: Work) -> int:
    """How many the network has."""
    layers = trace(get_variant(work.variant), work.in_channels, work.num_classes, work.sides)
    return sum(layer.params for layer in layers)
