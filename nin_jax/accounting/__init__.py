"""What a network costs: parameters, computation and memory, counted and reconciled."""

from nin_jax.accounting.account import Account, TaskMemory, account
from nin_jax.accounting.conventions import CONVENTIONS, Convention
from nin_jax.accounting.layers import LayerCost, layer_costs

__all__ = [
    "CONVENTIONS",
    "Account",
    "Convention",
    "LayerCost",
    "TaskMemory",
    "account",
    "layer_costs",
]
