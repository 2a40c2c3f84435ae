"""PyTorch against Flax, as a ladder: layer, block, logits, loss, gradients, training, data.

Every bound is in ``tolerances`` with its reason. ``frameworks`` puts both frameworks on one device,
``pairs`` makes one network in both with the same weights, and ``passes`` runs it forward and
backward.
"""

import os

# Must be set before JAX looks for devices: two processes share a GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
