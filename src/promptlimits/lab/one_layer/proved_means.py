"""What attention makes of the queries alone, with proved errors: the a_j^i as balls.

Scores are products of exact matrices, so `MatrixBall` encloses them; the softmax of n scores is
taken in ball arithmetic, and the values again by products. A theorem about the layer can so be
applied to the floats that a file holds.
"""

from __future__ import annotations

import math

import numpy as np
from flint import arb

from promptlimits.base.bound import PRECISION_BITS
from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.setting import Floats, Front, SharedQuery
from promptlimits.lipschitz.balls.matrix import MatrixBall, add_up, multiply_up, sqrt_up
from promptlimits.lipschitz.balls.rounding import dot, exact_vector, total
from promptlimits.nets.paper.weights import HeadWeights


def proved_means(setting: SharedQuery, tokens: Floats) -> tuple[MatrixBall, ...]:
    """Enclose each head's mean over some tokens, which `setting.statistics` estimates."""
    if setting.rotary_base is not None:
        raise ValueError("means are enclosed for layers without rotary positions only")
    seen = _normalised(setting.front, tokens)
    asked = _normalised(setting.front, setting.token[:, None])
    return tuple(_of_head(head, seen, asked) for head in setting.layer.heads)


def _ball_of(values: list[arb]) -> MatrixBall:
    """The column of numbers enclosed by balls."""
    center, squares = [], []
    for value in values:
        middle = float(value.mid())
        away = _up(abs(value - arb(middle)))
        center.append(middle)
        squares.append(multiply_up(away, away))
    return MatrixBall(center=np.array(center)[:, None], radius=sqrt_up(add_up(0.0, *squares)))


def _up(value: arb) -> float:
    number = float(value.upper())
    return math.nextafter(number, math.inf) if number else 0.0


def _of_head(head: HeadWeights, seen: MatrixBall, asked: MatrixBall) -> MatrixBall:
    exact = MatrixBall.exact
    scores = (exact(head.key) @ seen).T @ (exact(head.query) @ asked)
    with working_precision(PRECISION_BITS):
        balls = [arb(float(mid), scores.radius) for mid in scores.center[:, 0]]
        top = arb(float(scores.center.max()))
        weights = [(score - top).exp() for score in balls]
        whole = sum(weights, arb(0))
        shares = _ball_of([_share(weight, whole) for weight in weights])
    return exact(head.output) @ (exact(head.value) @ (seen @ shares))


def _share(weight: arb, whole: arb) -> arb:
    """A share of the whole; all of [0, 1] where e^score overflows for scores known badly."""
    share = weight / whole
    return share if share.is_finite() else arb(0.5, 0.5)


def _normalised(front: Front | None, tokens: Floats) -> MatrixBall:
    if front is None:
        return MatrixBall.exact(np.ascontiguousarray(tokens))
    with working_precision(PRECISION_BITS):
        seen = [normalised(front, exact_vector(column)) for column in tokens.T]
        if not all(entry.is_finite() for column in seen for entry in column):
            raise ValueError("the normalisation in front divides by zero on a token")
        return MatrixBall.concatenate([_ball_of(column) for column in seen], axis=1)


def normalised(front: Front, token: list[arb]) -> list[arb]:
    """A token as a normalisation in front leaves it, at the current precision."""
    count = len(token)
    centre = total(token) / count if front.centred else arb(0)
    moved = [entry - centre for entry in token]
    size = (dot(moved, moved) / count + arb(float(front.eps))).sqrt()
    gains, biases = exact_vector(front.gamma), exact_vector(front.beta)
    return [g * x / size + b for g, x, b in zip(gains, moved, biases, strict=True)]
