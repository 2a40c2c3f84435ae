"""Benchmarks: nin_jax against PyTorch and plain Flax, in one process, in interleaved rounds.

``python scripts/bench.py`` is the command line. Every benchmark yields flat rows with units in
their names; what fails is a row with an error in it, and the others go on.
"""
