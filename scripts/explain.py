"""Draw where a network finds each class: python scripts/explain.py PICTURE... --workdir RUN."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nin_jax import cli
from nin_jax.runs.trained import Source


@dataclass(frozen=True)
class ExplainConfig(Source):
    """Draw the maps of the last block, one for each class, over pictures (figure 4 of the paper).

    The mean of a map is the logit of its class. For a picture that cannot be read an error is
    printed and the exit code is 1, or 2 if none can be read.
    """

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Picture files (PNG, JPEG or another format of Pillow), or folders of them."""

    out: Path = Path("maps")
    """Folder for NAME-maps.png, one for each picture."""


def run(config: ExplainConfig) -> None:
    from nin_jax import UserError
    from nin_jax.inference import class_maps
    from nin_jax.training import device

    if not config.pictures:
        raise UserError("give one or more pictures, or folders of them")
    device.use_compilation_cache(config.compilation_cache)
    written, faults = class_maps.explain_files(config.pictures, config, config.out)
    for path in written:
        print(f"wrote {path}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1 if written else 2)


if __name__ == "__main__":
    cli.main(ExplainConfig, run)
