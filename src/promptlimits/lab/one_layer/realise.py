"""Prompts that are made: of h tokens with given statistics, or trained towards answers.

**Statement** (proved here; the layer is that of [@meyer2025]). If for every
head g the stacked matrix [V_g; c_1; ..; c_h] has rank rank(V_g) + h, then every (A, Z) with A^i
in the range of V_i and Z^i > 0 is that of some prompt of h tokens. So h tokens reach all that
prompts of any length reach.

**Proof.** Let token p_g solve V_g p_g = a_g, c_g . p_g = log z_g and c_i . p_g = -T for i != g,
which the rank condition allows. Then Z^i = z_i + (h - 1) e^(-T), so z_i is determined, and

    Z^i A^i  =  z_i a_i + e^(-T) sum_{g != i} V_i p_g,

where p_g depends on a_g affinely: as T grows, the linear system for a tends to A = a, so for
large T one solve finds a. []

Tokens are unbounded: the closer Z is to 0 or the more heads, the longer they are; repeating each
token n times spares them a log n. The tokens of least length are taken.

**Training** (`train_prompt`): Levenberg-Marquardt on the squared errors before the MLP. What is
found is an error that some prompt attains, evaluated on the prompt itself; it proves nothing about
other prompts. The derivative is the closed form of `reachable.jacobian`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from promptlimits.base.errors import RunFailed, require_positive_int
from promptlimits.lab.one_layer.oracle.problem import orthonormal_range
from promptlimits.lab.one_layer.reachable import jacobian, stacked_ranks, value_ranks
from promptlimits.lab.one_layer.setting import (
    Floats,
    SharedQuery,
    Statistics,
    attend,
    score_vectors,
    statistics,
)
from promptlimits.nets.paper.weights import HeadWeights, exact_array

SEPARATION: Final = 25.0
"""T lies this far below every log Z: foreign tokens then weigh less than e^-25."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Realisation:
    """A prompt and how well it does."""

    prompt: Floats  # (d, h n) tokens
    # Largest difference of A^i and log Z^i from those asked for, relative to 1 + |A^i| and
    # absolute; evaluated on the prompt itself.
    error: float
    longest_token: float  # largest Euclidean length of a token


@lru_cache(maxsize=8)  # asked for with every prompt tried; settings are compared by identity
def rank_condition(setting: SharedQuery) -> bool:
    """Whether [V_g; c_1; ..; c_h] has rank rank(V_g) + h for every head.

    Judged exactly, by integer matrices; x_0 as a normalisation in front leaves it, rounded.
    """
    heads = len(setting.layer.heads)
    wanted = [rank + heads for rank in value_ranks(setting.layer)]
    if max(wanted) > setting.layer.dim:
        return False
    token = setting.seen(setting.token[:, None])[:, 0]
    return list(stacked_ranks(setting.layer, token)) == wanted


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def realise(setting: SharedQuery, wanted: Statistics, *, copies: int = 1) -> Realisation:
    """Find h tokens, each repeated, whose statistics are those asked for.

    Args:
        setting: The layer and its queries; without normalisation in front or rotary positions.
        wanted: A (h, d), each in the range of its V_i, and finite log Z (h,).
        copies: How often each token stands in the prompt.

    Returns:
        The prompt, and its error measured.

    Raises:
        RunFailed: The rank condition does not hold, or A lies outside the ranges.
        UserError: `copies` is no whole number above 0.
        ValueError: The setting has a front or rotary positions.
    """
    require_positive_int("copies", copies)
    if setting.front is not None or setting.rotary_base is not None:
        raise ValueError("tokens are solved for in the plain layer only")
    if not rank_condition(setting):
        raise RunFailed(
            "the heads' values and scores depend on each other: not all statistics are a prompt's",
            remedy="use the limits on Z and A that the oracle states for such heads",
        )
    tokens = _tokens(setting, wanted, copies)
    prompt = np.repeat(tokens, copies, axis=1)
    got = statistics(setting, prompt, distance=setting.queries[0].shape[1])
    size = 1 + np.linalg.norm(wanted.mean, axis=1)
    error = max(
        float((np.linalg.norm(got.mean - wanted.mean, axis=1) / size).max()),
        float(np.abs(got.log_weight - wanted.log_weight).max()),
    )
    return Realisation(
        prompt=prompt, error=error, longest_token=float(np.linalg.norm(tokens, axis=0).max())
    )


def _tokens(setting: SharedQuery, wanted: Statistics, copies: int) -> Floats:
    """The h tokens as columns, by one linear solve in coordinates of the ranges."""
    scores = score_vectors(setting)
    heads = len(scores)
    low = float(wanted.log_weight.min()) - SEPARATION
    # z_i = Z^i - (h - 1) e^low, all as logarithms; the difference is below e^-25 of Z^i.
    own = wanted.log_weight + np.log1p(-(heads - 1) * np.exp(low - wanted.log_weight))
    ranks = value_ranks(setting.layer)
    bases = [
        orthonormal_range(head, rank) for head, rank in zip(setting.layer.heads, ranks, strict=True)
    ]
    inverses, constants = [], []
    for g, (head, basis) in enumerate(zip(setting.layer.heads, bases, strict=True)):
        scored = np.full(heads, low)
        scored[g] = own[g]
        stacked = _right_inverse(np.concatenate([_seen(head, basis), scores]))
        inverses.append(stacked[:, : basis.shape[1]])
        constants.append(stacked[:, basis.shape[1] :] @ (scored - np.log(copies)))
    sizes = [basis.shape[1] for basis in bases]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    system, right = np.eye(starts[-1]), np.zeros(starts[-1])
    for i, basis in enumerate(bases):
        rows = slice(starts[i], starts[i + 1])
        system[rows, rows] *= np.exp(own[i] - wanted.log_weight[i])
        right[rows] = basis.T @ wanted.mean[i]
        foreign = np.exp(low - wanted.log_weight[i])
        for g in range(heads):
            if g != i:
                seen = _seen(setting.layer.heads[i], basis)
                system[rows, starts[g] : starts[g + 1]] += foreign * (seen @ inverses[g])
                right[rows] -= foreign * (seen @ constants[g])
    try:
        solved = np.linalg.solve(system, right)
    except np.linalg.LinAlgError:
        raise RunFailed(
            "the heads' equations are singular in doubles",
            remedy="scale the weights or the statistics down",
        ) from None
    columns = [inverses[g] @ solved[starts[g] : starts[g + 1]] + constants[g] for g in range(heads)]
    return np.stack(columns, axis=1)


def _seen(head: HeadWeights, basis: Floats) -> Floats:
    """B^T V, multiplied in the order that keeps small rows."""
    return np.asarray((basis.T @ head.output) @ head.value)


def _right_inverse(rows: Floats) -> Floats:
    """The right inverse of least norm of independent rows, however different their lengths."""
    size = np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
    return np.asarray(np.linalg.pinv(rows / size[:, None], rcond=1e-13) / size)


_FIRST_DAMPING: Final = 1e-2
_MOST_DAMPING: Final = 1e12
_GAIN: Final = 1e-12
"""An accepted step of less than this share of the objective counts as standing still."""

_PATIENCE: Final = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedPrompt:
    """The best prompt of several starts."""

    prompt: Floats  # (d, m_p)
    squares: float  # sum_j e_j^2 on it, e_j = |u_j - x_0 - t_j|
    largest: float  # max_j e_j on it


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is not kept
def train_prompt(
    setting: SharedQuery,
    targets: Floats,
    prompt_tokens: int,
    generator: np.random.Generator,
    *,
    starts: int = 8,
    steps: int = 200,
) -> TrainedPrompt:
    """Train prompts of one length from several starts and keep the best."""
    require_positive_int("prompt_tokens", prompt_tokens)
    require_positive_int("starts", starts)
    wanted = exact_array("the target offsets", targets, (setting.count, setting.layer.dim))
    best = None
    for _ in range(starts):
        size = 10.0 ** generator.uniform(-1, 1)
        start = size * generator.standard_normal((setting.layer.dim, prompt_tokens))
        prompt = _descend(setting, wanted, start, steps)
        rows = ((attend(setting, prompt) - wanted) ** 2).sum(axis=1)
        if best is None or rows.sum() < best.squares:
            best = TrainedPrompt(
                prompt=prompt, squares=float(rows.sum()), largest=float(rows.max() ** 0.5)
            )
    assert best is not None
    return best


def _descend(setting: SharedQuery, wanted: Floats, prompt: Floats, steps: int) -> Floats:
    damping, still = _FIRST_DAMPING, 0
    residual = (attend(setting, prompt) - wanted).ravel()
    for _ in range(steps):
        slope = jacobian(setting, prompt)
        # The smaller of the two normal systems: rows are few, tokens may be many.
        outer = slope @ slope.T
        scale = float(np.trace(outer)) / len(outer)
        while damping < _MOST_DAMPING:
            dual = np.linalg.solve(
                outer + damping * (scale + 1e-300) * np.eye(len(outer)), residual
            )
            moved = prompt - (slope.T @ dual).reshape(prompt.T.shape).T
            found = (attend(setting, moved) - wanted).ravel()
            if np.isfinite(found).all() and found @ found < residual @ residual:
                break
            damping *= 4
        else:
            return prompt
        before, after = float(residual @ residual), float(found @ found)
        prompt, residual, damping = moved, found, max(damping / 6, 1e-12)
        still = still + 1 if before - after <= _GAIN * before else 0
        if still >= _PATIENCE or after == 0.0:
            return prompt
    return prompt
