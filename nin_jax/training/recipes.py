"""Recipes: how a network is trained. Each field of `Recipe` is an option of scripts/train.py."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nin_jax.models.init import Init
from nin_jax.models.stages import ImageSize
from nin_jax.models.variants import Variant
from nin_jax.validation import Count, Fraction, NotNegative, validated

Optimizer = Literal["sgd", "adam", "muon"]
Schedule = Literal["constant", "cosine", "steps"]
Augment = Literal["none", "flip", "flip_shift", "pad_crop"]
Normalize = Literal["none", "dataset"]
ClassWeights = Literal["none", "balanced"]


def _rising(fractions: tuple[float, ...]) -> tuple[float, ...]:
    if list(fractions) != sorted(set(fractions)) or 0 in fractions:
        raise ValueError("must rise, from above 0 to below 1")
    return fractions


Fractions = Annotated[tuple[Fraction, ...], Field(max_length=100), AfterValidator(_rising)]
Multiple = Annotated[float, Field(gt=0, le=1e6)]


@validated(kw_only=True, options=True)
class Recipe:
    """How to train a network.

    To add an option, add a field here: its annotation is its check, its docstring is its help.

    Raises:
        UserError: a value is out of range.
    """

    image_size: ImageSize = 224
    """Side of the resized images, or height and width, in pixels (recipes: the variant's, 224 for
    most)."""

    batch_size: Count = 128
    """Images per optimizer step (d2l and paper: 128, modern: 64)."""

    epochs: Count = 10
    """Passes over the training images (d2l and modern: 10, paper: 260)."""

    optimizer: Optimizer = "sgd"
    """Optimizer (d2l and paper: sgd, modern: muon)."""

    lr: Annotated[float, Field(gt=0, le=1e30)] = 0.1
    """Peak learning rate (d2l: the variant's published one, modern: 0.01, paper: 0.1)."""

    bias_lr_mult: Multiple = 1.0
    """Learning rate of biases, as a multiple of the rate of kernels (d2l and modern: 1, paper:
    2)."""

    last_lr_mult: Multiple = 1.0
    """Learning rate of the last layer, as a multiple of the rate of the others (d2l and modern: 1,
    paper: 0.1)."""

    momentum: Fraction = 0.0
    """Momentum of SGD and Muon, in [0, 1) (d2l: 0, modern: 0.95, paper: 0.9)."""

    nesterov: bool = False
    """Nesterov momentum (d2l and paper: no, modern: yes)."""

    weight_decay: NotNegative = 0.0
    """Weight decay of kernels, not biases, per step and unit of learning rate (d2l: 0, modern:
    0.01, paper: 0.0001)."""

    schedule: Schedule = "constant"
    """Learning rate after warm-up; cosine decays to 0, steps falls at --lr-steps (d2l: constant,
    modern: cosine, paper: steps)."""

    lr_steps: Fractions = ()
    """With --schedule steps, the fractions of the run at which the learning rate is multiplied by
    --lr-factor (paper: 200 / 260 and 230 / 260)."""

    lr_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """With --schedule steps, the factor of the learning rate, in (0, 1) (paper: 0.1)."""

    warmup: Fraction = 0.0
    """Fraction of the run over which the learning rate rises, in [0, 1) (d2l and paper: 0, modern:
    0.1)."""

    clip_norm: NotNegative = 0.0
    """Largest global norm of the gradient; 0 turns clipping off (d2l and paper: 0, modern: 1)."""

    dropout: Fraction | None = None
    """Rate of every dropout of the network, in [0, 1) (recipes: the network's own rates, mostly
    0.5)."""

    label_smoothing: Fraction = 0.0
    """Fraction of each label that is spread over all classes, in [0, 1) (recipes: 0)."""

    class_weights: ClassWeights = "none"
    """Weights of the classes in the training loss; balanced gives a class with c of the n training
    images the weight n / (k c), where k is the number of classes that have images (recipes:
    none)."""

    init: Init = "xavier"
    """Initialization (d2l: xavier, modern: identity, paper: gaussian)."""

    logit_relu: bool = True
    """ReLU after the last convolution (d2l and paper: yes, modern: no)."""

    augment: Augment = "none"
    """Augmentation: random left-right flips; flip_shift also shifts by up to 1/14 of the side in
    whole pixels, pad_crop by up to 1/8: at 32 pixels it pads 4 zeros on every side and crops at
    random, as is usual for CIFAR (recipes: none)."""

    normalize: Normalize = "none"
    """Preprocessing of the images: dataset subtracts the mean of the training images and divides by
    their standard deviation, for each channel. The values are kept with the weights (d2l and
    modern: none, paper: dataset)."""


def d2l(variant: Variant) -> Recipe:
    """As published: plain SGD at a constant learning rate, Xavier initialization, logits with ReLU.

    Source: "Dive into Deep Learning", sections 8.3 (NiN) and 8.1 (initialization). Training starts
    very slowly; at a learning rate of 0.1 the accuracy often stays at chance.
    """
    return Recipe(image_size=variant.image_size, lr=variant.published_lr)


def modern(variant: Variant) -> Recipe:
    """Learn from the first steps on, with the same settings for every variant.

    A layer after a block's first starts as the identity if it has as many output as input
    channels, so a block with one width is one convolution and a ReLU at the start.
    Muon (Jordan et al. 2024) takes steps of the same size in all directions of a kernel. Warm-up,
    cosine decay (Loshchilov and Hutter 2017), gradient clipping, and no ReLU on the logits.
    Results: ``benchmarks/results/modern.md``.
    """
    return Recipe(
        image_size=variant.image_size,
        lr=0.01,
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


def paper(variant: Variant) -> Recipe:
    """As Lin, Chen and Yan (2013) trained the network for CIFAR-10, without augmentation.

    Source: the authors' parameters for cuda-convnet, github.com/mavenlin/cuda-convnet, NIN/ and
    README.md: SGD, momentum 0.9, 200 epochs, then 30 at 1/10 and 30 at 1/100 of the rate.
    ``epsW`` 1 times the factor 0.1 of the loss is the learning rate of 0.1; ``wc`` 0.00001 is a
    decay of 0.0001 at that rate. The authors' solver in the Caffe model zoo has the same rate,
    momentum and decay. Biases learn at twice the rate (``epsB``), the last layer at a tenth of it
    (``cccp6``). The other networks' settings are options, see ``docs/classics.md``.

    What differs: there, images are preprocessed by global contrast normalization and ZCA whitening,
    here by the mean and deviation of each channel. Dropout is the network's.
    """
    return Recipe(
        image_size=variant.image_size,
        epochs=260,
        lr=0.1,
        bias_lr_mult=2.0,
        last_lr_mult=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="steps",
        lr_steps=(200 / 260, 230 / 260),
        init="gaussian",
        normalize="dataset",
    )


RECIPES: Mapping[str, Callable[[Variant], Recipe]] = {"d2l": d2l, "modern": modern, "paper": paper}
