"""Draw where a network finds each class: python scripts/explain.py PICTURE... --workdir RUN."""

from nin_jax import cli
from nin_jax.inference import files
from nin_jax.inference.class_maps import ExplainConfig, explain


def run(config: ExplainConfig) -> None:
    """Draw the maps, print their paths, and exit as `files.finish` does."""
    written, faults = explain(config)
    for path in written:
        print(f"wrote {path}")
    files.finish(faults, bool(written))


if __name__ == "__main__":
    cli.main(ExplainConfig, run)
