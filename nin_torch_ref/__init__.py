"""The Network-in-Network family in PyTorch: the reference that nin_jax is held to.

A second, independent statement of the same networks. It imports neither JAX nor nin_jax and
writes the numbers down again, in the published notation, so that a wrong number on either side
shows up in ``parity_tests``.
"""

from nin_torch_ref.architectures import ARCHITECTURES, Architecture
from nin_torch_ref.model import NiN, create_model
from nin_torch_ref.muon import Muon
from nin_torch_ref.training import train_step
from nin_torch_ref.weights import load_state_dict_file

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Muon",
    "NiN",
    "create_model",
    "load_state_dict_file",
    "train_step",
]
