"""Convert PyTorch weights to safetensors: python scripts/convert.py nin.pt nin.safetensors."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from nin_jax import cli


@dataclass(frozen=True)
class ConvertConfig:
    """Convert the state dict in a .pt or .safetensors file to a checked .safetensors file.

    Every key and shape must fit the network. A .pt file is read with weights_only=True, so no code
    in it is run; reading it needs PyTorch.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """File to read: .pt, .pth or .safetensors."""

    target: Annotated[Path, tyro.conf.Positional]
    """File to write: .safetensors."""

    variant: str = "nin"
    """Network of the weights: a built-in name, or a .json or .toml file."""

    in_channels: int = 1
    """Channels of its images: 1 for gray, 3 for color."""

    num_classes: int = 10
    """Number of its classes."""

    image_size: int | tuple[int, int] = 224
    """Side of its images, or height and width, in pixels; only nin_fc needs it."""


def run(config: ConvertConfig) -> None:
    """Convert the file, and print what was written."""
    from nin_jax import UserError, count_params, get_variant
    from nin_jax.models import convert

    if config.target.suffix != ".safetensors":
        raise UserError(f"the target must end in .safetensors, got {config.target}")
    if os.path.lexists(config.target):
        raise UserError(f"{config.target} exists already")
    if not os.path.isdir(config.target.parent):
        raise UserError(f"{config.target}: there is no folder {config.target.parent}")
    variant = get_variant(config.variant)
    sizes: dict[str, Any] = {
        "in_channels": config.in_channels,
        "num_classes": config.num_classes,
        "image_size": config.image_size,
    }
    if config.source.suffix in (".pt", ".pth"):
        state_dict = _read_pt(config.source)
    else:
        expected = convert.expected_shapes(variant, **sizes)
        state_dict = convert.load_safetensors(config.source, expected, variant.name)
    model = convert.from_torch(state_dict, variant, **sizes)
    try:
        convert.save_safetensors(model, config.target)
    except Exception as error:  # safetensors has its own error types
        raise UserError(f"cannot write {config.target}: {error}") from None
    print(f"wrote {config.target}: {model.variant.name}, {count_params(model):,} parameters")


def _read_pt(path: Path):
    from nin_jax import UserError

    try:
        from nin_torch_ref import load_state_dict_file
    except ModuleNotFoundError:
        raise UserError(f"reading {path} needs PyTorch: pip install -e '.[test]'") from None
    try:
        return load_state_dict_file(path)
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"cannot read weights {path}: {error.strerror}") from None


if __name__ == "__main__":
    cli.main(ConvertConfig, run)
