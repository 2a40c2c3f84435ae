"""PyTorch against Flax, as a ladder: layer, block, logits, loss, gradients, training, data.

Every bound stands in ``tolerances`` with its reason. ``frameworks`` puts both frameworks on one
device; ``pairs`` builds one network in both, with the same weights.
"""

import os

# Before JAX finds its devices: two processes share a GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
