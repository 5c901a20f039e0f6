"""The damped Gauss-Newton step of many least-squares problems, by the smaller normal system."""

from __future__ import annotations

import torch
from torch import Tensor


def damped_step(jacobian: Tensor, residuals: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The damped Gauss-Newton step, from the smaller of the two normal systems."""
    factor, solvable = factored(normal_matrix(jacobian), damping)
    step = step_of(factor, jacobian, residuals)
    solvable &= torch.isfinite(step).all(dim=-1)
    return torch.where(solvable[:, None], step, 0.0), solvable


def normal_matrix(jacobian: Tensor) -> Tensor:
    """J J^T (b, R, R) or J^T J (b, U, U), whichever is smaller, of J (b, R, U)."""
    dual = jacobian.shape[-2] <= jacobian.shape[-1]
    return jacobian @ jacobian.mT if dual else jacobian.mT @ jacobian


def factored(normal: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The Cholesky factor of each damped matrix, and whether it has one."""
    scale = normal.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    damped = normal.clone()
    damped.diagonal(dim1=-2, dim2=-1).add_((damping * scale)[:, None])
    factor, info = torch.linalg.cholesky_ex(damped)
    return factor, info == 0


def step_of(factor: Tensor, jacobian: Tensor, residuals: Tensor) -> Tensor:
    """The step (b, U) for residuals (b, R), from the factor of the damped normal matrix."""
    dual = jacobian.shape[-2] <= jacobian.shape[-1]
    right = residuals[..., None] if dual else jacobian.mT @ residuals[..., None]
    answer = torch.cholesky_solve(right, factor)
    return -(jacobian.mT @ answer if dual else answer)[..., 0]
