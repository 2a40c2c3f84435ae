"""Benchmarks of nin_jax against PyTorch and plain Flax, in interleaved rounds.

``python scripts/bench.py`` is the command line. Every benchmark yields flat rows with units in
their names. If a contender fails, its row holds the error and the others continue.
"""
