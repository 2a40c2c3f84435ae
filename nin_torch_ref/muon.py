"""Muon (Jordan et al. 2024) for a network's kernels, with Adam for its biases."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

COEFFICIENTS = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
ADAM_BETAS = 0.9, 0.999
EPSILON = 1e-8


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Move a matrix's singular values towards 1 by Newton-Schulz iterations: [O, N] -> [O, N].

    For X = U S V^T the result is U S' V^T. S' is between 0.7 and 1.2, except for singular values
    thousands of times smaller than the Frobenius norm.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix  # for the smaller product x x^T
    x = wide / (wide.norm() + EPSILON)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrix else x.T


class Muon(torch.optim.Optimizer):
    """Muon for parameters with two or more axes, Adam for the others, in their precision.

    A kernel [O, C, K, K] is taken as the matrix [O, C K K]. Its update is
    ``sqrt(max(1, O / (C K K)))`` times the orthogonalized momentum, with decoupled weight decay.
    Biases do not decay. All moments are bias-corrected, as in Kingma and Ba (2015). With
    ``nesterov``, both optimizers use the next step's momentum (Dozat 2016).

    `torch.optim.Muon` with ``adjust_lr_fn="original"`` is the same iteration, but takes only
    matrices, orthogonalizes them in bfloat16 and has no bias correction. Without ``nesterov`` that
    correction is a factor of the whole momentum and the orthogonalization removes it, so the two
    agree. With ``nesterov`` they weight gradient and momentum differently in the first steps.

    Args:
        params: parameters of the network.
        lr: learning rate of both optimizers.
        momentum: of Muon, in [0, 1).
        nesterov: whether to use Nesterov momentum.
        weight_decay: a step multiplies kernels by ``1 - lr * weight_decay``.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter by its gradient once; return what ``closure`` returns."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for param in group["params"]:
                update = _kernel_update if param.ndim > 1 else _bias_update
                update(param, param.grad, self.state[param], group)
        return loss


def _kernel_update(
    param: nn.Parameter, grad: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
) -> None:
    matrix = _momentum(grad, state, group["momentum"], group["nesterov"]).flatten(1)
    scale = math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
    param.mul_(1 - group["lr"] * group["weight_decay"])
    param.sub_(group["lr"] * scale * orthogonalize(matrix).view_as(param))


def _bias_update(
    param: nn.Parameter, grad: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
) -> None:
    beta1, beta2 = ADAM_BETAS
    first = _momentum(grad, state, beta1, group["nesterov"])
    second = state.setdefault("second", torch.zeros_like(grad))
    second.lerp_(grad**2, 1 - beta2)
    root = (second / (1 - beta2 ** state["step"])).sqrt()
    param.sub_(group["lr"] * first / (root + EPSILON))


def _momentum(
    grad: torch.Tensor, state: dict[str, Any], beta: float, nesterov: bool
) -> torch.Tensor:
    """Count the step, add the gradient to the moving average, and return the corrected average."""
    step = state["step"] = state.get("step", 0) + 1
    average = state.setdefault("average", torch.zeros_like(grad))
    average.lerp_(grad, 1 - beta)
    if not nesterov:
        return average / (1 - beta**step)
    ahead = average / (1 - beta ** (step + 1))
    return beta * ahead + (1 - beta) * grad / (1 - beta**step)
