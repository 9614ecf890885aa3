"""Muon for matrices, AdamW for all other parameters."""

import math
from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95
_STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration of Jordan et al.

# The size of an update in learning rates. AdamW's is about 0.2, by Liu et al. Twice that was better on MovieLens-100K.
_SIZE = 0.4


class Muon(torch.optim.AdamW):
    """AdamW, but groups with `orthogonal` are matrices that take orthogonal updates (Jordan et al., Muon, 2024).

    The update of a matrix is its averaged gradient with all singular values brought close to 1, so that directions with
    small gradients are learned too. It is scaled so that its size does not depend on the shape of the matrix, and both
    kinds share one learning rate (Liu et al., Muon is scalable for LLM training, 2025). The state of a matrix is its
    `momentum` and the number of steps.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Makes one update."""
        groups = self.param_groups
        for group in groups:
            if group["orthogonal"]:
                for matrix in group["params"]:
                    if matrix.grad is not None:
                        _turn(matrix, self.state[matrix], group["lr"], group["weight_decay"])
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        try:
            super().step(closure)
        finally:
            self.param_groups = groups


def _turn(matrix: Tensor, state: dict[str, Any], rate: float, weight_decay: float) -> None:
    grad = matrix.grad
    assert grad is not None
    if "momentum" not in state:
        # AdamW does not load a state without steps.
        state.update(momentum=torch.zeros_like(matrix), step=torch.zeros(()))
    state["step"] += 1
    state["momentum"].lerp_(grad, 1 - _MOMENTUM)
    update = orthogonal(grad.lerp(state["momentum"], _MOMENTUM))  # Nesterov's momentum
    matrix.mul_(1 - rate * weight_decay)
    matrix.add_(update, alpha=-rate * _SIZE * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """`matrix` (m, n) with singular values between about 0.7 and 1.2; those below a thousandth of its norm stay small.

    It is computed in float32 everywhere: in bfloat16, ranks that add up gradients in another order would drift apart.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix) / matrix.norm().clamp_min(1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    found: Tensor = x.T if is_tall else x
    return found
