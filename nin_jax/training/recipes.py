"""Recipes: how a network is trained. Each field of `Recipe` is an option of scripts/train.py."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from nin_jax.models.init import Init
from nin_jax.models.stages import ImageSize
from nin_jax.models.variants import Variant
from nin_jax.validation import Count, Fraction, NotNegative, validated

Optimizer = Literal["sgd", "adam", "muon"]
Schedule = Literal["constant", "cosine"]
Augment = Literal["none", "flip", "flip_shift", "pad_crop"]
ClassWeights = Literal["none", "balanced"]


@validated(kw_only=True, options=True)
class Recipe:
    """How to train a network.

    To add an option, add a field here: its annotation is its check, its docstring is its help.

    Raises:
        UserError: a value is out of range.
    """

    image_size: ImageSize = 224
    """Side of the resized images, or height and width, in pixels (recipes: 224)."""

    batch_size: Count = 128
    """Images per optimizer step (d2l: 128, modern: 64)."""

    epochs: Count = 10
    """Passes over the training images (recipes: 10)."""

    optimizer: Optimizer = "sgd"
    """Optimizer (d2l: sgd, modern: muon)."""

    lr: Annotated[float, Field(gt=0, le=1e30)] = 0.1
    """Peak learning rate (d2l: the variant's published one; modern: 0.02)."""

    momentum: Fraction = 0.0
    """Momentum of SGD and Muon, in [0, 1) (d2l: 0, modern: 0.95)."""

    nesterov: bool = False
    """Nesterov momentum (d2l: no, modern: yes)."""

    weight_decay: NotNegative = 0.0
    """Weight decay of kernels, not biases, per step and unit of learning rate (d2l: 0, modern:
    0.01)."""

    schedule: Schedule = "constant"
    """Learning rate after warm-up; cosine decays to 0 (d2l: constant, modern: cosine)."""

    warmup: Fraction = 0.0
    """Fraction of the run over which the learning rate rises, in [0, 1) (d2l: 0, modern: 0.1)."""

    clip_norm: NotNegative = 0.0
    """Largest global norm of the gradient; 0 turns clipping off (d2l: 0, modern: 1)."""

    label_smoothing: Fraction = 0.0
    """Fraction of each label that is spread over all classes, in [0, 1) (recipes: 0)."""

    class_weights: ClassWeights = "none"
    """Weights of the classes in the training loss; balanced gives a class of c of the n training
    images the weight n / (k c), where k is the number of classes (recipes: none)."""

    init: Init = "xavier"
    """Initialization (d2l: xavier, modern: identity)."""

    logit_relu: bool = True
    """ReLU after the last convolution (d2l: yes, modern: no)."""

    augment: Augment = "none"
    """Augmentation: random left-right flips; flip_shift also shifts by up to 1/14 of the side in
    whole pixels, pad_crop by up to 1/8: at 32 pixels it pads 4 zeros on every side and crops at
    random, as is usual for CIFAR (recipes: none)."""


def d2l(variant: Variant) -> Recipe:
    """As published: plain SGD at a constant learning rate, Xavier initialization, logits with ReLU.

    Source: "Dive into Deep Learning", sections 8.3 (NiN) and 8.1 (initialization). Training starts
    very slowly; at a learning rate of 0.1 the accuracy often stays at chance.
    """
    return Recipe(lr=variant.published_lr)


def modern(variant: Variant) -> Recipe:
    """Learn from the first steps on, with the same settings for every variant.

    The 1x1 layers start as the identity, so at the start each block is one convolution and a ReLU.
    Muon (Jordan et al. 2024) takes steps of the same size in all directions of a kernel. Warm-up,
    cosine decay (Loshchilov and Hutter 2017), gradient clipping, and no ReLU on the logits.
    Results: ``benchmarks/results/modern.md``.
    """
    del variant
    return Recipe(
        lr=0.02,
        optimizer="muon",
        momentum=0.95,
        nesterov=True,
        weight_decay=0.01,
        schedule="cosine",
        warmup=0.1,
        clip_norm=1.0,
        init="identity",
        logit_relu=False,
        batch_size=64,
    )


RECIPES: Mapping[str, Callable[[Variant], Recipe]] = {"d2l": d2l, "modern": modern}
