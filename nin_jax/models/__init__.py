"""The networks as data and as Flax modules, and their weights."""
