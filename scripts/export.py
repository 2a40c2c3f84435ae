"""Export a network: python scripts/export.py --pretrained nin15 --out nin15.jax_export."""

from nin_jax import cli
from nin_jax.inference.export import ExportConfig, export_source
from nin_jax.training.device import use_compilation_cache


def run(config: ExportConfig) -> None:
    """Write the file, and print what its program takes and returns."""
    use_compilation_cache(config.compilation_cache)
    export_source(config, config.out, config.images)


if __name__ == "__main__":
    cli.main(ExportConfig, run)
