"""One training step, as in PyTorch's tutorials."""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    clip_norm: float = 0.0,
) -> torch.Tensor:
    """Update the model's parameters once, on one batch.

    Dropout is on if the model is in training mode (``model.train()``).

    Args:
        model: maps images to logits [B, num_classes].
        optimizer: of the model's parameters.
        images: float [B, C, H, W].
        labels: int64 [B], each in [0, num_classes).
        clip_norm: largest norm of the gradient of all parameters together; 0 does not clip.

    Returns:
        Mean cross entropy of the batch before the update, a scalar.
    """
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    if clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.detach()
