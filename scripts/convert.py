"""Convert weights to safetensors: python scripts/convert.py nin.pt nin.safetensors."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from nin_jax import NiN, Preprocessing, UserError, cli, convert, count_params, get_variant, load_run
from nin_jax.errors import one_line, option_of
from nin_jax.models import caffe
from nin_jax.reading import is_torch
from nin_jax.runs import workdir


@dataclass(frozen=True)
class ConvertConfig:
    """Convert the state dict in a PyTorch or safetensors file, a .caffemodel, or the weights of a
    run, to a checked .safetensors file.

    Every shape must fit the network. A PyTorch file is read with weights_only=True, so no code in
    it is run; reading it needs PyTorch. Caffe is not needed.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """File of PyTorch or safetensors to read, whatever its name, a file of Caffe, which ends in
    .caffemodel, or the folder of a run."""

    target: Annotated[Path, tyro.conf.Positional]
    """File to write: .safetensors."""

    variant: str | None = None
    """Network of the weights: a built-in name, or a .json or .toml file. Default: nin, or
    nin_imagenet for a .caffemodel. The options from this one to --mean-file are only for files, not
    for runs."""

    in_channels: int | None = None
    """Channels of its images: 1 for gray, 3 for color. Default: 1, or 3 for a .caffemodel."""

    num_classes: int | None = None
    """Number of its classes. Default: 10, or 1000 for a .caffemodel."""

    image_size: int | tuple[int, int] | None = None
    """Side of its images, or height and width, in pixels; only nin_fc needs it. Default: the
    variant's."""

    scale: float | None = None
    """Preprocessing of the network: multiply values from 0 to 1 by this, such as 255. Defaults of
    this option and the next four: those in the file, else none; for a .caffemodel of color images
    255 and bgr, and for nin_imagenet also the mean 104 117 123."""

    mean: tuple[float, ...] | None = None
    """Subtract this from the scaled images: one number, or one for each channel."""

    std: tuple[float, ...] | None = None
    """Then divide by this: one number, or one for each channel."""

    channel_order: Literal["rgb", "bgr"] | None = None
    """Order of the network's channels."""

    mean_file: Path | None = None
    """Instead of --mean, a .binaryproto of Caffe, whose mean over each channel is taken."""

    naming: Literal["sequential", "pytorchcv"] = "sequential"
    """Names in the file to write: net.0.0.weight, or those of the package pytorchcv."""

    best: bool = False
    """From a run: take the weights of the best epoch by test or held-out accuracy."""

    checkpoint: int | None = None
    """From a run: take the weights of the checkpoint after this step."""


def run(config: ConvertConfig) -> None:
    """Convert the file, and print what was written."""
    if config.target.suffix != ".safetensors":
        raise UserError(f"the target must end in .safetensors, got {config.target}")
    workdir.check_file(config.target)
    model = _of_run(config) if os.path.isdir(config.source) else _of_file(config)
    with one_line(f"cannot write {config.target}"):
        convert.save_safetensors(model, config.target, config.naming)
    print(f"wrote {config.target}: {model.variant.name}, {count_params(model):,} parameters")


PREPROCESSING = ("scale", "mean", "std", "channel_order")
OF_FILES = ("variant", "in_channels", "num_classes", "image_size", *PREPROCESSING, "mean_file")


def _given(config: ConvertConfig, *names: str) -> dict[str, Any]:
    """Return those options that the user gave."""
    values = {name: getattr(config, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _of_run(config: ConvertConfig) -> NiN:
    for name in _given(config, *OF_FILES):
        raise UserError(
            f"{config.source} is a folder: a run knows its network, so leave out {option_of(name)}"
        )
    return load_run(config.source, best=config.best, checkpoint=config.checkpoint)


def _of_file(config: ConvertConfig) -> NiN:
    if config.best or config.checkpoint is not None:
        raise UserError(f"--best and --checkpoint need the folder of a run, not {config.source}")
    is_caffe = config.source.suffix.lower() == ".caffemodel"
    variant = get_variant(config.variant or ("nin_imagenet" if is_caffe else "nin"))
    usual: dict[str, Any] = {
        "in_channels": 3 if is_caffe else 1,
        "num_classes": 1000 if is_caffe else 10,
        "image_size": variant.image_size,
    }
    sizes = usual | _given(config, "in_channels", "num_classes", "image_size")
    if is_caffe:
        stated = _stated(config, caffe.usual_preprocessing(variant.name, sizes["in_channels"]))
        return convert.from_caffe(config.source, variant, **sizes, preprocessing=stated)
    if is_torch(config.source):
        state_dict, found = _read_pt(config.source), Preprocessing()
    else:
        expected = convert.expected_shapes(variant, **sizes)
        state_dict = convert.load_safetensors(config.source, expected, variant.name)
        found = convert.read_preprocessing(config.source) or Preprocessing()
    return convert.from_torch(state_dict, variant, **sizes, preprocessing=_stated(config, found))


def _stated(config: ConvertConfig, usual: Preprocessing) -> Preprocessing:
    """Return the preprocessing with what the options say."""
    given = _given(config, *PREPROCESSING)
    if config.mean_file is not None:
        if "mean" in given:
            raise UserError("give one of --mean and --mean-file")
        given["mean"] = caffe.read_mean(config.mean_file)
    return replace(usual, **given)


def _read_pt(path: Path) -> Mapping[str, Any]:
    try:
        from nin_torch_ref import load_state_dict_file  # imports PyTorch, which is slow
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
