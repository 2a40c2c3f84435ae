"""Weights that ship with the package, each with a card; `create_model`, fresh or with them.

NAME.safetensors holds float16 weights, NAME.json its card; a name is VARIANT-DATASET.
`scripts/evaluate.py --export` makes both.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nin_jax.errors import UserError, unknown_name
from nin_jax.models import convert
from nin_jax.models.geometry import as_height_width
from nin_jax.models.init import Init
from nin_jax.models.nin import NiN, new_model
from nin_jax.models.variants import MAX_NAME, ImageSize, Variant, get_variant
from nin_jax.reading import check_file, from_plain, read_json, shown

FOLDER = Path(__file__).resolve().parent.parent / "weights"
MAX_BYTES = 5_000_000  # of a file of weights: the package stays small


@dataclass(frozen=True)
class Card:
    """What shipped weights are, how they were made, and what they reach.

    Attributes:
        variant, in_channels, num_classes, image_size: as for `create_model`; the size,
            (height, width), is the one they were trained and scored at.
        logit_relu: whether ReLU follows the last convolution.
        dataset, data_checksum: what they were trained on, as `datasets.Dataset` has it.
        class_names: one for each logit.
        command: the command line that trained them.
        test_accuracy: of these float16 weights, computed in float32, on all test images.
        test_images: how many those are.
        batch_size: images that were scored at a time.
        versions: of the packages that they were scored with.
        sha256: of the file of weights, in hex.
    """

    variant: str
    in_channels: int
    num_classes: int
    image_size: tuple[int, int]
    logit_relu: bool
    dataset: str
    data_checksum: str
    class_names: tuple[str, ...]
    command: str
    test_accuracy: float
    test_images: int
    batch_size: int
    versions: dict[str, str]
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.dataset}"

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of `create_model` that they were made for."""
        names = ("in_channels", "num_classes", "image_size")
        return {name: getattr(self, name) for name in names}


def list_pretrained() -> list[str]:
    """Return the names of the weights that ship with the package.

    Each is VARIANT-DATASET: ``create_model(VARIANT, pretrained=DATASET)``.

    Example:
        >>> all(name.partition("-")[0] in list_variants() for name in list_pretrained())
        True
    """
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def find(name: str) -> Card:
    """Return the card of shipped weights.

    Args:
        name: one of `list_pretrained`; its variant alone will do if there is one data set for it.

    Raises:
        UserError: there are none of that name, or of several data sets; or the card is damaged.
    """
    names = list_pretrained()
    fitting = [full for full in names if name in (full, full.partition("-")[0])]
    if not fitting:
        short = (full.partition("-")[0] for full in names)
        raise unknown_name("pretrained weights", name[:MAX_NAME], {*names, *short})
    if len(fitting) > 1 and name not in fitting:
        raise UserError(f"pretrained {name} is of several data sets: give {' or '.join(fitting)}")
    path = FOLDER / f"{name if name in fitting else fitting[0]}.json"
    card = from_plain(Card, read_json(path), path)
    if card.name != path.stem or card.num_classes != len(card.class_names):
        raise UserError(f"{path} is damaged: its name or its class names do not fit")
    return card


def read_weights(card: Card) -> dict[str, np.ndarray]:
    """Return shipped weights, checked against their card's SHA-256: float16 arrays by name.

    Raises:
        UserError: the file is missing, or not the one that the card was written for.
    """
    path = FOLDER / f"{card.name}.safetensors"
    check_file(path, MAX_BYTES, f"cannot read weights {path}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != card.sha256:
        raise UserError(f"{path} is damaged: its SHA-256 is not the one in its card; install again")
    expected = convert.expected_shapes(get_variant(card.variant), **card.sizes)
    return convert.load_safetensors(path, expected, card.variant)


def create_model(
    variant: str | Variant = "nin",
    *,
    pretrained: str | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    image_size: ImageSize | None = None,
    seed: int | None = None,
    init: Init | None = None,
    logit_relu: bool | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> NiN:
    """Return a NiN, freshly initialised or with weights that ship with the package.

    What is left out is, for a fresh model, the default named below, and with ``pretrained`` what
    the weights were made for (see `Card`).

    Args:
        variant: a name from `list_variants`, a ``.json`` or ``.toml`` file, or a `Variant`.
        pretrained: the data set that the weights were trained on, as "fashion_mnist"; see
            `list_pretrained`. None draws all parameters.
        in_channels: 1 (the default) for grey images, 3 for colour.
        num_classes: number of logits (default 10).
        image_size: side in pixels, or (height, width) (default 224). With a "mean" classifier
            the model takes other sizes too, pretrained or not.
        seed: of the initial parameters (default 0); not to be given with ``pretrained``, which
            leaves nothing to draw.
        init: "xavier" (the default: uniform weights, PyTorch's biases; as the published
            exercise), "he" (normal weights, zero biases), or "identity": a block's convolutions
            after the first that keep the number of channels start as the identity, the others
            as by "he", and the biases of the head's first convolution at 1, so that no class is
            dead under its ReLU. Not to be given with ``pretrained``.
        logit_relu: whether the last convolution is followed by ReLU, as published (default
            True). A class whose map is dead under it gets no gradient and can never recover.
        dtype: of the computation, float32 or bfloat16. Logits are float32 all the same.
        param_dtype: of the parameters.

    Raises:
        UserError: unknown variant, initialisation or pretrained weights, a count below 1, or an
            image so small that a block's map vanishes; or the weights are for another number of
            channels or classes, or, with a linear classifier, for another image size.

    Example:
        >>> model = create_model("nin15", num_classes=10, image_size=96)
        >>> model(jnp.zeros((2, 96, 96, 1))).shape
        (2, 10)
    """
    sizes = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
    drawing = {"seed": seed, "init": init}
    options = sizes | drawing | {"logit_relu": logit_relu}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if pretrained is None:
        return new_model(variant, **given, dtype=dtype, param_dtype=param_dtype)
    if not isinstance(pretrained, str):
        raise UserError(f"pretrained must be the name of a data set, got {shown(pretrained)}")
    variant = get_variant(variant)
    card = find(f"{variant.name}-{pretrained}")
    if variant != get_variant(card.variant):
        raise UserError(f"the pretrained weights {card.name} are of another {variant.name}")
    for name in drawing.keys() & given.keys():
        raise UserError(f"{name} is of no use with pretrained: no parameter is drawn")
    return load_model(card, **given, dtype=dtype, param_dtype=param_dtype)


def load_model(card: Card, **given: Any) -> NiN:
    """Return the model of shipped weights.

    Args:
        card: of the weights.
        given: arguments of `create_model`; what is left out is as the card has it.

    Raises:
        UserError: as `create_model`.
    """
    variant = get_variant(card.variant)
    options: dict[str, Any] = card.sizes | {"logit_relu": card.logit_relu} | given
    for name in ("in_channels", "num_classes", "logit_relu"):
        if options[name] != getattr(card, name):
            raise UserError(
                f"the pretrained weights {card.name} are for {name}={getattr(card, name)}, got "
                f"{shown(options[name])}; scripts/train.py --init-from pretrained:{card.name} "
                "trains them for others"
            )
    sides = as_height_width(options["image_size"])
    if variant.classifier == "linear" and sides != card.image_size:
        raise UserError(
            f"the pretrained weights {card.name} are for image_size={card.image_size} alone, as "
            f"their classifier is a linear layer; got {sides}"
        )
    weights = read_weights(card)
    model = new_model(variant, **options)
    convert.load_state_dict(model, weights)
    return model
