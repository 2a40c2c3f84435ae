"""Convert weights to safetensors: python scripts/convert.py nin.pt nin.safetensors."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from nin_jax import cli


@dataclass(frozen=True)
class ConvertConfig:
    """Convert the state dict in a PyTorch or safetensors file, or the weights of a run, to a
    checked .safetensors file.

    Every key and shape must fit the network. A PyTorch file is read with weights_only=True, so no
    code in it is run; reading it needs PyTorch.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """File of PyTorch or safetensors to read, whatever its name, or the folder of a run."""

    target: Annotated[Path, tyro.conf.Positional]
    """File to write: .safetensors."""

    variant: str | None = None
    """Network of the weights: a built-in name, or a .json or .toml file. Default: nin. This and the
    next three options are for files: a run knows its own."""

    in_channels: int | None = None
    """Channels of its images: 1 for gray, 3 for color. Default: 1."""

    num_classes: int | None = None
    """Number of its classes. Default: 10."""

    image_size: int | tuple[int, int] | None = None
    """Side of its images, or height and width, in pixels; only nin_fc needs it. Default: the
    variant's."""

    naming: Literal["sequential", "pytorchcv"] = "sequential"
    """Names in the file to write: net.0.0.weight, or those of the package pytorchcv."""

    best: bool = False
    """From a run: take the weights of the best epoch, by test accuracy."""

    checkpoint: int | None = None
    """From a run: take the weights of the checkpoint after this step."""


def run(config: ConvertConfig) -> None:
    """Convert the file, and print what was written."""
    from nin_jax import UserError, count_params
    from nin_jax.models import convert

    if config.target.suffix != ".safetensors":
        raise UserError(f"the target must end in .safetensors, got {config.target}")
    if os.path.lexists(config.target):
        raise UserError(f"{config.target} exists already")
    if not os.path.isdir(config.target.parent):
        raise UserError(f"{config.target}: there is no folder {config.target.parent}")
    model = _of_run(config) if os.path.isdir(config.source) else _of_file(config)
    try:
        convert.save_safetensors(model, config.target, config.naming)
    except UserError:
        raise
    except Exception as error:  # safetensors has its own error types
        raise UserError(f"cannot write {config.target}: {error}") from None
    print(f"wrote {config.target}: {model.variant.name}, {count_params(model):,} parameters")


def _of_run(config: ConvertConfig):
    from nin_jax import UserError, load_run

    options = (config.variant, config.in_channels, config.num_classes, config.image_size)
    if any(option is not None for option in options):
        raise UserError(
            f"{config.source} is a folder: a run knows its network, so leave out --variant, "
            "--in-channels, --num-classes and --image-size"
        )
    return load_run(config.source, best=config.best, checkpoint=config.checkpoint)


def _of_file(config: ConvertConfig):
    from nin_jax import UserError, get_variant
    from nin_jax.models import convert
    from nin_jax.reading import is_torch

    if config.best or config.checkpoint is not None:
        raise UserError(f"--best and --checkpoint need the folder of a run, not {config.source}")
    variant = get_variant(config.variant or "nin")
    sizes: dict[str, Any] = {
        "in_channels": 1 if config.in_channels is None else config.in_channels,
        "num_classes": 10 if config.num_classes is None else config.num_classes,
        "image_size": variant.image_size if config.image_size is None else config.image_size,
    }
    if is_torch(config.source):
        return convert.from_torch(_read_pt(config.source), variant, **sizes)
    expected = convert.expected_shapes(variant, **sizes)
    state_dict = convert.load_safetensors(config.source, expected, variant.name)
    preprocessing = convert.read_preprocessing(config.source)
    return convert.from_torch(state_dict, variant, **sizes, preprocessing=preprocessing)


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
