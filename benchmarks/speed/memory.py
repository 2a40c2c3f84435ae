"""Measure the memory of a network's steps, each contender in a separate process."""

from collections.abc import Callable

from benchmarks.speed.probe import measure
from benchmarks.speed.work import OURS, TORCH, TORCH_WITH_GRADIENTS, Task, Work
from nin_jax.accounting.account import Account
from nin_jax.accounting.memory_tables import Measured
from nin_jax.models.variants import get_variant
from nin_jax.training.recipes import RECIPES


def measure_account(
    account: Account, variant: str, recipe: str, say: Callable[[str], None]
) -> list[Measured]:
    """Measure nin_jax and PyTorch's most economical mode, in training and in prediction.

    Args:
        account: of the network, with XLA's plans.
        variant: name or file of the network.
        recipe: name of the recipe; its steps use its optimizer if that is Muon, otherwise SGD.
        say: shows a line of progress.
    """
    settings = RECIPES[recipe](get_variant(variant))
    with_gradients = account.predicted_torch_step_bytes(with_gradients=True)
    jobs: list[tuple[Task, str, int | None]] = [
        ("train", OURS, account.memory["train"].step_bytes),
        ("train", TORCH, with_gradients),
        ("predict", OURS, account.memory["predict"].step_bytes),
        ("predict", TORCH, account.predicted_torch_step_bytes(with_gradients=False)),
        ("predict", TORCH_WITH_GRADIENTS, with_gradients),
    ]
    found = []
    for task, contender, predicted in jobs:
        say(f"{account.variant}: measuring {contender}, {task}")
        work = Work(
            task=task,
            variant=variant,
            batch_size=account.batch_size,
            image_size=account.image_size,
            in_channels=account.in_channels,
            precision=account.precision,
            optimizer="muon" if settings.optimizer == "muon" else "sgd",
            momentum=settings.momentum,
            num_classes=account.num_classes,
        )
        row = measure(work, contender)
        found.append(
            Measured(
                contender=contender,
                task=task,
                peak_resident_bytes=row.get("peak_resident_bytes"),
                between_steps_bytes=row.get("before_steps_bytes"),
                step_bytes=row.get("steps_bytes"),
                peak_device_bytes=row.get("peak_device_bytes"),
                predicted_step_bytes=predicted,
                error=row.get("error"),
            )
        )
    return found
