"""What attention makes of the queries alone, with proved errors: the a_j^i as balls.

Scores are products of exact matrices, so `matrix_balls` encloses them; the softmax of n scores is
taken in ball arithmetic, and the values again by products. A theorem about the layer can so be
applied to the floats that a file holds.
"""

from __future__ import annotations

import math

import numpy as np
from flint import arb

from promptlimits.base.bound import PRECISION_BITS, working_precision
from promptlimits.lab.one_layer.setting import Floats, Front, SharedQuery
from promptlimits.lipschitz.balls.matrix import MatrixBall, add_up, multiply_up, sqrt_up
from promptlimits.nets.paper.weights import HeadWeights


def proved_means(setting: SharedQuery, tokens: Floats) -> tuple[MatrixBall, ...]:
    """Enclose each head's mean over some tokens, which `setting.statistics` estimates."""
    if setting.rotary_base is not None:
        raise ValueError("means are enclosed for layers without rotary positions only")
    seen = _normalised(setting.front, tokens)
    asked = _normalised(setting.front, setting.token[:, None])
    return tuple(_of_head(head, seen, asked) for head in setting.layer.heads)


def ball_of(values: list[arb]) -> MatrixBall:
    """The column of numbers enclosed by balls, as a matrix ball."""
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
        shares = ball_of([_share(weight, whole) for weight in weights])
    return exact(head.output) @ (exact(head.value) @ (seen @ shares))


def _share(weight: arb, whole: arb) -> arb:
    """A share of the whole; all of [0, 1] where e^score overflows for scores known badly."""
    share = weight / whole
    return share if share.is_finite() else arb(0.5, 0.5)


def _normalised(front: Front | None, tokens: Floats) -> MatrixBall:
    if front is None:
        return MatrixBall.exact(np.ascontiguousarray(tokens))
    with working_precision(PRECISION_BITS):
        columns = [ball_of(_normalised_column(front, column)) for column in tokens.T]
    return MatrixBall.concatenate(columns, axis=1)


def _normalised_column(front: Front, column: Floats) -> list[arb]:
    entries = [arb(float(x)) for x in column]
    if front.centred:
        middle = sum(entries, arb(0)) / len(entries)
        entries = [x - middle for x in entries]
    spread = sum((x * x for x in entries), arb(0)) / len(entries) + arb(float(front.eps))
    scale = spread.sqrt()
    normalised = [
        arb(float(gain)) * x / scale + arb(float(bias))
        for gain, x, bias in zip(front.gamma, entries, front.beta, strict=True)
    ]
    if not all(x.is_finite() for x in normalised):
        raise ValueError("the normalisation in front divides by zero on a token")
    return normalised
