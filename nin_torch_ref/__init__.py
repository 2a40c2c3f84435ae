"""The Network-in-Network family in PyTorch: the reference for nin_jax.

An independent definition of the same networks in the published notation. It imports neither JAX
nor nin_jax, so that ``parity_tests`` fails if a number in either package is wrong.
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
