"""One step of training, as PyTorch's tutorials write it."""

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import nn


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Updates the model's parameters once, on one batch.

    Dropout is on if the model is in training mode: ``model.train()`` or ``model.eval()`` before.

    Args:
        model: maps images to logits [B, num_classes].
        optimizer: over the model's parameters.
        images: float [B, C, H, W].
        labels: int64 [B], each in [0, num_classes).

    Returns:
        Scalar: mean cross entropy of the batch, before the update.
    """
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()
