"""A network at one image size, as text: one line, or a row for each layer."""

from nin_jax.models.geometry import Layer, as_height_width, trace
from nin_jax.models.variants import VARIANTS, ImageSize, Variant, get_variant


def describe(
    variant: str | Variant,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: ImageSize = 224,
) -> str:
    """One line: name, input, parameters, multiply-adds (MACs) of one image.

    >>> describe("nin", in_channels=3)
    'nin: 224x224x3 -> 10 classes, 2,015,398 parameters, 830,041,864 MACs'
    """
    variant = get_variant(variant)
    layers = trace(variant, in_channels, num_classes, image_size)
    height, width = as_height_width(image_size)
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
    image_size: ImageSize = 224,
) -> str:
    """A table with a row for each layer: output shape, parameters, MACs of one image.

    Args:
        variant, in_channels, num_classes, image_size: as for `create_model`.

    Raises:
        UserError: as `create_model` does.
    """
    variant = get_variant(variant)
    layers = trace(variant, in_channels, num_classes, image_size)
    rows = [("layer", "", "output", "parameters", "MACs"), *map(_row, layers)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    title = describe(
        variant, in_channels=in_channels, num_classes=num_classes, image_size=image_size
    )
    return "\n".join([title, lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _row(layer: Layer) -> tuple[str, str, str, str, str]:
    shape = "x".join(map(str, layer.out_shape))
    counts = (f"{n:,}" if n else "" for n in (layer.params, layer.macs))
    return layer.name, f"{layer.kind} {layer.detail}", shape, *counts  # type: ignore[return-value]


def variant_table(*, in_channels: int = 1, num_classes: int = 10, image_size: int = 224) -> str:
    """A line for each built-in variant, as `describe` has it, names aligned."""
    lines = []
    for variant in VARIANTS.values():
        layers = trace(variant, in_channels, num_classes, image_size)
        params, macs = (sum(getattr(layer, f) for layer in layers) for f in ("params", "macs"))
        lines.append(f"{variant.name:<16}{params:>12,}{macs:>16,}")
    head = f"{'variant':<16}{'parameters':>12}{'MACs':>16}"
    note = f"one image of {image_size}x{image_size}x{in_channels}, {num_classes} classes"
    return "\n".join([head, *lines, note])
