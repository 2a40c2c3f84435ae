"""A network at one image size, as text: one line, or a row for each layer."""

from nin_jax.models.geometry import trace
from nin_jax.models.stages import ImageSize
from nin_jax.models.variants import VARIANTS, Variant, get_variant
from nin_jax.tables import plain_text


def describe(
    variant: str | Variant,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: ImageSize | None = None,
) -> str:
    """Return one line: name, input, parameters, multiply-adds (MACs) of one image.

    Args:
        variant, in_channels, num_classes, image_size: as for `create_model`.

    Raises:
        UserError: as `create_model` does.

    >>> describe("nin", in_channels=3)
    'nin: 224x224x3 -> 10 classes, 2,015,398 parameters, 830,041,864 MACs'
    """
    variant = get_variant(variant)
    layers = trace(variant, in_channels, num_classes, image_size)
    height, width, _ = layers[0].in_shape
    return (
        f"{variant.name}: {height}x{width}x{in_channels} -> {num_classes} classes, "
        f"{sum(layer.params for layer in layers):,} parameters, "
        f"{sum(layer.macs for layer in layers):,} MACs"
    )


def summary(
    variant: str | Variant,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: ImageSize | None = None,
) -> str:
    """Return a table with a row for each layer: output shape, parameters, MACs of one image.

    Args:
        variant, in_channels, num_classes, image_size: as for `create_model`.

    Raises:
        UserError: as `create_model` does.
    """
    network = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
    rows = [
        (
            layer.name,
            f"{layer.kind} {layer.detail}",
            "x".join(map(str, layer.out_shape)),
            f"{layer.params:,}" if layer.params else "",
            f"{layer.macs:,}" if layer.macs else "",
        )
        for layer in trace(get_variant(variant), **network)
    ]
    headings = ("layer", "", "output", "parameters", "MACs")
    table = plain_text(headings, rows, ("left", "left", "left", "right", "right"))
    return f"{describe(variant, **network)}\n{table}"


def variant_table() -> str:
    """Return a table of the built-in variants: image size, parameters, MACs of one gray image."""
    rows = []
    for variant in VARIANTS.values():
        layers = trace(variant, in_channels=1, num_classes=10, image_size=None)
        params, macs = (sum(getattr(layer, f) for layer in layers) for f in ("params", "macs"))
        size = "x".join(map(str, layers[0].in_shape[:2]))
        rows.append((variant.name, size, f"{params:,}", f"{macs:,}"))
    headings = ("variant", "images", "parameters", "MACs")
    table = plain_text(headings, rows, ("left", "right", "right", "right"))
    return f"{table}\none image with one channel, 10 classes"
