"""Weights that ship with the package, and `create_model`, with or without them.

NAME.safetensors holds float16 weights and NAME.json describes them (a card). A name is
VARIANT-DATASET. `scripts/evaluate.py --export` writes both files.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nin_jax.errors import UserError, unknown_name
from nin_jax.models import convert
from nin_jax.models.geometry import as_height_width
from nin_jax.models.init import Init
from nin_jax.models.nin import NiN, check_dtype, new_model
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.models.stages import ImageSize
from nin_jax.models.variants import MAX_NAME, Variant, get_variant
from nin_jax.reading import check_file, read_json, shown
from nin_jax.validation import FAIL_FAST, Accuracy, Count, Text, from_file, validated

FOLDER = Path(__file__).resolve().parent.parent / "weights"
MAX_BYTES = 5_000_000  # of a weights file, to keep the package small


@validated()
class Card:
    """Description of weights that ship: their network, their training and their accuracy.

    Attributes:
        variant, in_channels, num_classes, image_size: as for `create_model`; the weights were
            trained and evaluated at this size, (height, width).
        logit_relu: whether ReLU follows the last convolution.
        dataset, data_checksum: name and checksum of the training data, as in `datasets.Dataset`.
        class_names: one for each logit.
        command: the command line that trained the weights.
        test_accuracy: accuracy of the float16 weights on all test images, computed in float32.
        test_images: number of test images.
        batch_size: batch size of that evaluation.
        versions: of the packages used for it, by name.
        sha256: of the weights file, in hex.
    """

    variant: Text
    in_channels: Count
    num_classes: Count
    image_size: tuple[Count, Count]
    logit_relu: bool
    dataset: Text
    data_checksum: Text
    class_names: Annotated[tuple[Text, ...], FAIL_FAST]
    command: Text
    test_accuracy: Accuracy
    test_images: Count
    batch_size: Count
    versions: dict[str, Text]
    sha256: Text

    @property
    def name(self) -> str:
        """The name that `create_model` and --pretrained take."""
        return f"{self.variant}-{self.dataset}"

    @property
    def sizes(self) -> dict[str, Any]:
        """Arguments of `create_model` that fit the weights."""
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
        name: one of `list_pretrained`, or only its variant if there is one dataset for it.

    Raises:
        UserError: the name is unknown or ambiguous, or the card is damaged.
    """
    names = list_pretrained()
    fitting = [full for full in names if name in (full, full.partition("-")[0])]
    if not fitting:
        short = (full.partition("-")[0] for full in names)
        raise unknown_name("pretrained weights", name[:MAX_NAME], {*names, *short})
    if len(fitting) > 1 and name not in fitting:
        raise UserError(f"pretrained {name} is ambiguous: give {' or '.join(fitting)}")
    path = FOLDER / f"{name if name in fitting else fitting[0]}.json"
    card = from_file(Card, read_json(path), path)
    if card.name != path.stem or card.num_classes != len(card.class_names):
        raise UserError(f"{path} is damaged: its name or its class names do not fit")
    return card


def read_weights(card: Card) -> dict[str, np.ndarray]:
    """Read the weights of a card: float32 arrays by name, with the file's float16 values.

    Raises:
        UserError: the file is missing, or its SHA-256 is not the card's.
    """
    path = FOLDER / f"{card.name}.safetensors"
    check_file(path, MAX_BYTES, f"cannot read weights {path}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != card.sha256:
        raise UserError(f"{path} is damaged: its SHA-256 is not the one in its card; install again")
    return {
        name: array.astype(np.float32) for name, array in convert.load_safetensors(path).items()
    }


def read_preprocessing(card: Card) -> Preprocessing:
    """Read the preprocessing of a card's weights, which is in their file.

    Raises:
        UserError: the file is missing, or damaged.
    """
    path = FOLDER / f"{card.name}.safetensors"
    return convert.read_preprocessing(path) or Preprocessing()


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
    preprocessing: Preprocessing | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> NiN:
    """Return a NiN, newly initialized or with weights that ship with the package.

    With ``pretrained``, arguments that are not given have the values of the weights' `Card`;
    without, the defaults below.

    Args:
        variant: a name from `list_variants`, a ``.json`` or ``.toml`` file, or a `Variant`.
        pretrained: dataset that the weights were trained on, such as "fashion_mnist"; see
            `list_pretrained`. None (the default) draws all parameters.
        in_channels: 1 (the default) for gray images, 3 for color.
        num_classes: number of logits (default 10).
        image_size: side in pixels, or (height, width) (default: the variant's, which is 224, or
            32 for those of CIFAR and SVHN). With a "mean" classifier the model also takes other
            sizes, pretrained or not.
        seed: of the initial parameters (default 0); not allowed with ``pretrained``.
        init: "xavier" (the default: uniform weights and PyTorch's biases, as in the published
            exercise), "he" (normal weights, zero biases), "gaussian" (normal weights of standard
            deviation 0.05, zero biases: the paper), or "identity": in each block, the
            convolutions after the first that keep the number of channels start as the identity.
            Other kernels are drawn as with "he", and the biases of the head's first convolution
            with one channel per class are 1, so that no class starts with zero gradients. Not
            allowed with ``pretrained``.
        logit_relu: whether ReLU follows the last convolution, as published (default True). A
            class whose map is zero everywhere then gets no gradient and cannot recover.
        preprocessing: what the model does to its images first (default: nothing). Not allowed with
            ``pretrained``: the weights have theirs.
        dtype: of the computation, float32 or bfloat16. Logits are float32 in both cases, or
            float64 with such parameters.
        param_dtype: of the parameters.

    Raises:
        UserError: a name is unknown, a count is below 1, or the image is so small that a block's
            map vanishes; or the weights are for another number of channels or classes or, with a
            linear classifier, for another image size.

    Example:
        >>> model = create_model("nin15", num_classes=10, image_size=96)
        >>> model(jnp.zeros((2, 96, 96, 1))).shape
        (2, 10)
    """
    sizes = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
    drawing = {"seed": seed, "init": init}
    options = sizes | drawing | {"logit_relu": logit_relu, "preprocessing": preprocessing}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if pretrained is None:
        return new_model(variant, **given, dtype=dtype, param_dtype=param_dtype)
    if not isinstance(pretrained, str):
        raise UserError(f"pretrained must be the name of a dataset, got {shown(pretrained)}")
    variant = get_variant(variant)
    card = find(f"{variant.name}-{pretrained}")
    if variant != get_variant(card.variant):
        raise UserError(f"the pretrained weights {card.name} are for another {variant.name}")
    for name in drawing.keys() & given.keys():
        raise UserError(f"{name} cannot be given with pretrained: no parameter is drawn")
    if preprocessing is not None:
        raise UserError("preprocessing cannot be given with pretrained: the weights have theirs")
    return load_model(card, **given, dtype=dtype, param_dtype=param_dtype)


def load_model(card: Card, **given: Any) -> NiN:
    """Return a model with the weights of a card.

    Args:
        card: of the weights.
        given: arguments of `create_model`; the card gives the others.

    Raises:
        UserError: as for `create_model`.
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
            f"the pretrained weights {card.name} are for image_size={card.image_size} only, "
            f"because their classifier is a linear layer; got {sides}"
        )
    dtype = options.get("param_dtype", jnp.float32)
    check_dtype("param_dtype", dtype)
    weights = {name: array.astype(jnp.dtype(dtype)) for name, array in read_weights(card).items()}
    options["preprocessing"] = read_preprocessing(card)
    return convert.from_torch(weights, variant, **options)
