"""How far outputs are from targets: Definitions 4.1, 4.2, 4.4 and 4.5 of meyer2025.

A list of k targets is *eps-accessible* for k queries if some prompt brings it within eps
(4.2, 4.5); such a prompt can be sought, not computed. Two targets are *eps-distinct* if they are
more than eps apart (4.1, 4.4). Whole outputs are measures that contain the prompt's own tokens
(Remark 4.6); else the last m tokens alone are compared (Remark 4.3).
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.mean_field import TokenMeasure, mean_field, token_measure
from promptlimits.nets.paper.transformer import PaperTransformer
from promptlimits.nets.paper.transport import position_distance, wasserstein_distance

Norm: TypeAlias = Literal["token", "matrix"]
_AXES: Final = {"token": (-2,), "matrix": (-2, -1)}


def sequence_distance(first: Tensor, second: Tensor, *, norm: Norm = "token") -> float:
    """max_i ||Y^i - Z^i||: the lists are eps-distinct exactly if it is above eps (Definition 4.1).

    Args:
        first: Y, of shape (k, d, m).
        second: Z, of the same shape.
        norm: "token", the longest column, or "matrix", the Frobenius norm.

    Returns:
        The distance.

    Raises:
        UserError: The shapes differ, or there is no such norm.
    """
    if first.shape != second.shape or first.dim() < 2:
        raise UserError(
            "the lists",
            "have one shape (k, d, m)",
            got=f"{tuple(first.shape)} and {tuple(second.shape)}",
            remedy="give as many outputs as targets, tokens in columns",
        )
    if norm not in _AXES:
        raise UserError("norm", f"be one of {', '.join(_AXES)}", got=norm, remedy="use token")
    return float(torch.linalg.vector_norm(first - second, dim=_AXES[norm]).max())


def output_distance(
    model: PaperTransformer,
    prompt: Tensor,
    queries: Tensor,
    targets: Tensor,
    *,
    norm: Norm = "token",
) -> float:
    """max_i ||tau([P, X^i])_{:, m_p:} - Y^i||: P approximates Y up to this (Definition 4.2).

    Args:
        model: tau.
        prompt: P, of shape (d, m_p).
        queries: X, of shape (k, d, m).
        targets: Y, of the same shape.
        norm: "token", the longest column, or "matrix", the Frobenius norm.

    Returns:
        The distance: Y is eps-accessible if it is at most eps.
    """
    return sequence_distance(model.with_prompt(prompt, queries), targets, norm=norm)


def measure_distance(first: TokenMeasure, second: TokenMeasure, *, order: float = 2) -> float:
    """W_q(mu, nu): the measures are eps-distinct exactly if it is above eps (Definition 4.4).

    Args:
        first: mu.
        second: nu; with times exactly if mu has some.
        order: q, 1 or more.

    Returns:
        The distance; with times the one that compares equal positions only, which may be infinite.

    Raises:
        UserError: One of them has times and the other has none, or the order is below 1.
    """
    x, y = first.points.numpy(), second.points.numpy()
    weights = {"first_weights": first.weights.numpy(), "second_weights": second.weights.numpy()}
    if first.times is None and second.times is None:
        return wasserstein_distance(x, y, order=order, **weights)
    if first.times is None or second.times is None:
        raise UserError(
            "the times",
            "be given for both measures or for none",
            got="one with and one without",
            remedy="use token_measure(tokens, timed=True) for both",
        )
    s, t = first.times.numpy(), second.times.numpy()
    return position_distance(x, y, first_times=s, second_times=t, order=order, **weights)


def distribution_distance(
    model: PaperTransformer,
    prompt: Tensor,
    queries: Tensor,
    target: TokenMeasure,
    *,
    order: float = 2,
) -> float:
    """max_i W_q(T(M([P, X^i])), mu): P approximates mu up to this (Definition 4.5).

    Args:
        model: tau, whose mean-field generalisation is T.
        prompt: P, of shape (d, m_p).
        queries: X, of shape (k, d, m).
        target: mu; with times exactly if the transformer is masked.
        order: q, 1 or more.

    Returns:
        The distance: mu is eps-accessible if it is at most eps.
    """
    outputs = (
        mean_field(model, token_measure(torch.cat([prompt, query], dim=-1), timed=model.masked))
        for query in queries
    )
    return max(measure_distance(output, target, order=order) for output in outputs)
