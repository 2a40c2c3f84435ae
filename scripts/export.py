"""Export a network: python scripts/export.py --pretrained nin15 --out nin15.jax_export."""

from nin_jax import cli
from nin_jax.inference.export import ExportConfig, export_source

if __name__ == "__main__":
    cli.main(ExportConfig, export_source)
