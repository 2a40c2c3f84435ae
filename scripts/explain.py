"""Where in a picture a network sees each class: python scripts/explain.py PICTURE ..."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nin_jax import cli


@dataclass(frozen=True)
class ExplainConfig:
    """Draw the last block's maps, one for each class, over pictures (figure 4 of the paper).

    The mean of a map is the class's logit. A picture that cannot be read is named and the others
    go on; the exit code is then 1, or 2 if none is left.
    """

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Picture files (PNG, JPEG and what else Pillow reads), or folders of them."""

    workdir: Path
    """Folder of the run, as scripts/train.py wrote it."""

    out: Path = Path("maps")
    """Folder for NAME-maps.png, one a picture."""

    weights: Path | None = None
    """Another .safetensors file to take the parameters from. Default: the run's own."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to run; auto takes a GPU if JAX finds one."""

    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder, for a quick next start."""


def run(config: ExplainConfig) -> None:
    from nin_jax import UserError, device, explanation

    if not config.pictures:
        raise UserError("give one or more pictures, or folders of them")
    device.use_compilation_cache(config.compilation_cache)
    written, faults = explanation.explain_files(
        config.pictures,
        config.workdir,
        config.out,
        weights=config.weights,
        device=config.device,
    )
    for path in written:
        print(f"wrote {path}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1 if written else 2)


if __name__ == "__main__":
    cli.main(ExplainConfig, run)
