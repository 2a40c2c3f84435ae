"""The costs of a network: parameters, computation and memory, by formula and by XLA."""
