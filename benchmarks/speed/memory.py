"""The memory that a network takes, measured in processes of their own."""

from collections.abc import Callable

from benchmarks.speed.probe import measure
from benchmarks.speed.work import OURS, TORCH, TORCH_WITH_GRADIENTS, Task, Work
from nin_jax.accounting.account import Account
from nin_jax.accounting.memory_tables import Measured
from nin_jax.models.variants import get_variant
from nin_jax.training.config import RECIPES


def measure_account(
    account: Account, variant: str, recipe: str, say: Callable[[str], None]
) -> list[Measured]:
    """Ours and PyTorch's best for memory, in training and in prediction.

    Args:
        account: of the network, with XLA's plans.
        variant: its name or file.
        recipe: whose optimizer the steps have, if it is SGD or Muon.
        say: is told what is being measured.
    """
    how = RECIPES[recipe](get_variant(variant))
    found = []
    jobs: list[tuple[Task, str, int | None]] = [
        ("train", OURS, account.memory["train"].step_bytes),
        ("train", TORCH, account.predicted_torch_step_bytes(with_gradients=True)),
        ("predict", OURS, account.memory["predict"].step_bytes),
        ("predict", TORCH, account.predicted_torch_step_bytes(with_gradients=False)),
        ("predict", TORCH_WITH_GRADIENTS, account.predicted_torch_step_bytes(with_gradients=True)),
    ]
    for task, contender, predicted in jobs:
        say(f"{account.variant}: measuring {contender}, {task}")
        work = Work(
            task,
            variant,
            account.batch_size,
            account.image_size,
            account.in_channels,
            account.precision,
            "muon" if how.optimizer == "muon" else "sgd",
            how.momentum,
            account.num_classes,
        )
        row = measure(work, contender)
        found.append(
            Measured(
                contender,
                task,
                row.get("peak_resident_bytes"),
                row.get("before_steps_bytes"),
                row.get("steps_bytes"),
                row.get("peak_device_bytes"),
                predicted,
                row.get("error"),
            )
        )
    return found
