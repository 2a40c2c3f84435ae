"""The Network-in-Network family in JAX/Flax, tested against a PyTorch reference."""

from nin_jax.accounting.account import account
from nin_jax.errors import UserError
from nin_jax.inference.predictor import Predictor
from nin_jax.models import convert
from nin_jax.models.nin import NiN, NiNBlock, class_maps, count_params
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.models.pretrained import create_model, list_pretrained
from nin_jax.models.stages import Pool, Stage
from nin_jax.models.summary import describe, summary
from nin_jax.models.variants import Variant, get_variant, list_variants
from nin_jax.runs.trained import load_run

__version__ = "0.1.0"

__all__ = [
    "NiN",
    "NiNBlock",
    "Pool",
    "Predictor",
    "Preprocessing",
    "Stage",
    "UserError",
    "Variant",
    "account",
    "class_maps",
    "convert",
    "count_params",
    "create_model",
    "describe",
    "get_variant",
    "list_pretrained",
    "list_variants",
    "load_run",
    "summary",
]
