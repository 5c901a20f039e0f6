"""Weights on the queries for which the error floor of Theorem 5 is highest: an optimiser.

For a d x k matrix U the floor at weights w is

    f(w)  =  sum of the k - h least eigenvalues of diag(sqrt w) U^T U diag(sqrt w)
          =  min over projections X of rank k - h (their hull: 0 <= X <= I, tr X = k - h)
             of  sum_j w_j (R^T X R)_jj,         U = Q R.

It is a minimum of linear functions: concave, homogeneous of degree one, and with kinks where
eigenvalues meet, as they do at the best weights. Here the projection is smoothed to an occupation
1/(1 + exp((lambda - mu)/T)), and weights are multiplied by powers of their slopes while T falls.
Any weights give a true floor; these are only chosen well.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from promptlimits.lab.one_layer.setting import Floats

_STEPS: Final = 240
_HOTTEST: Final = 0.1
_COLDEST: Final = 3e-4
"""T as a share of the mean eigenvalue, at the first and at the last step."""

_LEAST: Final = 1e-12
_PACE: Final = 60.0


def best_weights(projected: Floats, rank: int) -> Floats:
    """Weights of the simplex for which the tail of squared singular values is large."""
    factor: Floats = np.asarray(np.linalg.qr(projected, mode="r"), dtype=np.float64)
    start = max(_by_length(factor, rank), key=lambda weights: _tail(factor, weights, rank))
    best, value = start, _tail(factor, start, rank)
    weights = (start + 1 / len(start)) / 2
    kept = factor.shape[1] - rank
    for step in range(_STEPS):
        cold = _HOTTEST * (_COLDEST / _HOTTEST) ** (step / _STEPS)
        slopes = _slopes(factor, weights, kept, cold)
        top = float(slopes.max())
        if not top > 0:
            break
        # The smoothed function bends as 1/T: steps that fall with T neither jump nor stall.
        weights = weights * np.maximum(slopes / top, _LEAST) ** min(1.0, _PACE * cold)
        weights = np.maximum(weights / weights.sum(), _LEAST)
        weights = weights / weights.sum()
        found = _tail(factor, weights, rank)
        if found > value:
            best, value = weights, found
    return np.asarray(best)


def _by_length(factor: Floats, rank: int) -> list[Floats]:
    """For each q the weights 1/|t_j|^2 on the q longest: the best for orthogonal columns."""
    squares = np.maximum((factor**2).sum(axis=0), 1e-300)
    order = np.argsort(-squares)
    found = [np.full(len(squares), 1 / len(squares))]
    for count in range(rank + 1, len(squares) + 1):
        weights = np.zeros(len(squares))
        weights[order[:count]] = squares[order[count - 1]] / squares[order[:count]]
        found.append(weights / weights.sum())
    return found


def _tail(factor: Floats, weights: Floats, rank: int) -> float:
    sizes = np.linalg.svd(factor * np.sqrt(weights), compute_uv=False)
    return float((sizes[rank:] ** 2).sum())


def _slopes(factor: Floats, weights: Floats, kept: int, cold: float) -> Floats:
    """Derivative of the smoothed floor in the weights, (k,)."""
    values, vectors = np.linalg.eigh((factor * weights) @ factor.T)
    scale = cold * max(float(values.mean()), 1e-300)
    occupied = _occupation(values / scale, kept - (factor.shape[1] - len(values)))
    return np.asarray(occupied @ (vectors.T @ factor) ** 2)


def _occupation(values: Floats, total: int) -> Floats:
    """1/(1 + exp(values - mu)) with mu such that they add up to `total`."""
    if total <= 0:
        return np.zeros_like(values)
    low, high = values.min() - 40.0, values.max() + 40.0
    for _ in range(40):
        middle = (low + high) / 2
        filled = 1 / (1 + np.exp(np.clip(values - middle, -700, 700)))
        low, high = (middle, high) if filled.sum() < total else (low, middle)
    return np.asarray(filled)
