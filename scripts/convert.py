"""A PyTorch checkpoint as checked safetensors: python scripts/convert.py nin.pt nin.safetensors."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from nin_jax import cli


@dataclass(frozen=True)
class ConvertConfig:
    """Turn the state dict in a .pt or .safetensors file into a checked .safetensors file.

    The weights must fit the network to the last key and shape; a .pt file is read with
    weights_only=True, so nothing in it is run, and needs PyTorch installed.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """File to read: .pt, .pth or .safetensors."""

    target: Annotated[Path, tyro.conf.Positional]
    """File to write: .safetensors."""

    variant: str = "nin"
    """Network that the weights are for: a built-in name, or a .json or .toml file."""

    in_channels: int = 1
    """Channels of its images: 1 for grey, 3 for colour."""

    num_classes: int = 10
    """Number of its logits."""

    image_size: int | tuple[int, int] = 224
    """Side of its images, or height and width, in pixels; matters to nin_fc alone."""


def run(config: ConvertConfig) -> None:
    from nin_jax import UserError, count_params, get_variant
    from nin_jax.models import convert

    if config.target.suffix != ".safetensors":
        raise UserError(f"the target must end in .safetensors, got {config.target}")
    if os.path.lexists(config.target):
        raise UserError(f"{config.target} is there already")
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
    except Exception as error:  # safetensors wraps what the system says
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
