"""Answer the six questions of the exercise by measurement: python scripts/study.py."""

import sys

from nin_jax import cli
from nin_jax.study.config import StudyConfig


def run(config: StudyConfig) -> None:
    """Run what is missing, and write the page."""
    from nin_jax.study.study import make_study

    make_study(config, ["python", "scripts/study.py", *sys.argv[1:]])


if __name__ == "__main__":
    cli.main(StudyConfig, run)
