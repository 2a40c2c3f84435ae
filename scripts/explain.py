"""Draw where a network finds each class: python scripts/explain.py PICTURE... --workdir RUN."""

from nin_jax import cli
from nin_jax.inference import class_maps, files
from nin_jax.inference.class_maps import ExplainConfig


def run(config: ExplainConfig) -> None:
    """Draw the maps, print their paths, and exit as `files.finish` does."""
    config.check()
    if config.test_images is None:
        written, faults = class_maps.explain_files(config.pictures, config, config.out)
    else:
        faults = []
        written = class_maps.explain_test_images(
            config.test_images, config, config.data_dir, config.out
        )
    for path in written:
        print(f"wrote {path}")
    files.finish(faults, bool(written))


if __name__ == "__main__":
    cli.main(ExplainConfig, run)
