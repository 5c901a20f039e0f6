"""Queries that share their last token, and the few numbers through which a prompt reaches them.

Notation (sections 3 and 4 of [@meyer2025], [@wang2023]). A layer of h heads reads the last column
of [P, X^j], which is x_0 for every j. Head i scores a token p by c_i . p with c_i = W_k^T W_q x_0,
and writes V_i p, V_i = W_o W_v. Over the columns of X^j alone (x_0 included)

    Z_j^i = sum of e^(score),        a_j^i = (1 / Z_j^i) sum of e^(score) V_i x,

and over the prompt, Z^i and A^i likewise. Then, for every prompt of every length, masked or not,

    u_j := x_0 + sum_i [ lambda_j^i a_j^i + (1 - lambda_j^i) A^i ],
    lambda_j^i = Z_j^i / (Z_j^i + Z^i),

and the layer answers MLP(u_j): the prompt enters through (A^i, Z^i) alone, the **sufficient
statistics** of attention. A causal mask changes nothing, since x_0 stands last. A normalisation
in front replaces each token by its normalised form in scores and values, and rotary positions
turn the keys by their distance from x_0; the form stays, for rotary positions only among queries
of one length (else each query sees the prompt from another distance).

**Proved means**: the a_j^i as balls. Scores are products of exact matrices, so `MatrixBall`
encloses them; the softmax of n scores is taken in ball arithmetic, and the values again by
products. A theorem about the layer can so be applied to the floats that a file holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from flint import arb
from numpy.typing import NDArray

from promptlimits.base.bound import PRECISION_BITS
from promptlimits.base.errors import UserError
from promptlimits.base.exact import working_precision
from promptlimits.lipschitz.balls.matrix import MatrixBall, add_up, multiply_up, sqrt_up
from promptlimits.lipschitz.balls.rounding import dot, exact_vector, total
from promptlimits.nets.paper.weights import Array, HeadWeights, LayerWeights, exact_array

Floats: TypeAlias = NDArray[np.float64]

LARGEST: Final = 1e100
"""Numbers, and products of weights and tokens, beyond this are refused: their squares overflow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """A normalisation in front of attention: LayerNorm, or RMSNorm if `centred` is False.

    Raises:
        UserError: The gain or the bias is no vector (d,) of finite numbers up to 1e100 in size,
            or `eps` is no finite number of 0 or more.
    """

    gamma: Array  # (d,) gain
    beta: Array  # (d,) bias
    eps: float  # added to the variance, or to the mean square
    centred: bool = True  # whether the mean is subtracted

    def __post_init__(self) -> None:
        shape = (int(np.size(self.gamma)),)
        for name in ("gamma", "beta"):
            told = f"{name} of the front"
            object.__setattr__(self, name, exact_array(told, getattr(self, name), shape))
            require_moderate(told, getattr(self, name))
        _require_number("eps of the front", self.eps, 0.0)

    def __call__(self, tokens: Floats) -> Floats:
        """Normalise each column of (d, n)."""
        moved = tokens - tokens.mean(axis=0) if self.centred else tokens
        scale = np.sqrt((moved**2).mean(axis=0) + self.eps)
        return np.asarray(self.gamma[:, None] * moved / scale + self.beta[:, None])


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedQuery:
    """k queries X^1..X^k to one layer, all with the same last token.

    Attributes:
        layer: The layer.
        queries: Each (d, m_j), m_j at least 1; their last columns are equal.
        front: Normalisation in front of attention, or None.
        rotary_base: Base of rotary positions (whole head, halves paired), or None.

    Raises:
        UserError: There is no query, one has another width, no token, NaN, or another last
            token; a head has size 0; numbers or scores pass 1e100; the front has another width
            or divides by zero; the base is not from 1 to 1e100; or rotary positions meet a head
            of odd size or queries of several lengths.
    """

    layer: LayerWeights
    queries: tuple[Array, ...]
    front: Front | None = None
    rotary_base: float | None = None

    def __post_init__(self) -> None:
        require_usable(self.layer)
        self._check_queries()
        if self.rotary_base is not None:
            self._check_rotary(self.rotary_base)
        if self.front is not None and self.front.gamma.shape != (self.layer.dim,):
            raise UserError(
                "the front",
                f"have the layer's width {self.layer.dim}",
                got=len(self.front.gamma),
                remedy="give gamma and beta of that length",
            )
        self._check_sizes()

    def _check_queries(self) -> None:
        if not self.queries:
            raise UserError("the queries", "be at least one", got="none", remedy="give some")
        checked = []
        for number, query in enumerate(self.queries):
            length = np.shape(query)[1] if np.ndim(query) == 2 else 0
            name = f"query {number}"
            checked.append(exact_array(name, query, (self.layer.dim, max(length, 1))))
            require_moderate(name, checked[-1])
            if not np.array_equal(checked[-1][:, -1], checked[0][:, -1]):
                raise UserError(
                    name,
                    "end with the same token as the first",
                    got="another last token",
                    remedy="one layer tells such queries apart without a prompt: give those alike",
                )
        object.__setattr__(self, "queries", tuple(checked))

    def _check_rotary(self, base: float) -> None:
        _require_number("rotary_base", base, 1.0)
        if any(head.query.shape[0] % 2 for head in self.layer.heads):
            raise UserError(
                "the head size", "be even for rotary positions", got="odd", remedy="pad the heads"
            )
        if len({query.shape[1] for query in self.queries}) > 1:
            raise UserError(
                "the queries",
                "be of one length where positions are rotary",
                got="several lengths",
                remedy="a prompt is at another distance from each: group them by length",
            )

    def _check_sizes(self) -> None:
        with np.errstate(all="ignore"):
            every = self.seen(np.concatenate(self.queries, axis=1))
        if not np.isfinite(every).all():
            raise UserError(
                "the front",
                "not divide by zero",
                got="a token whose normalised form is not finite",
                remedy="give eps above 0",
            )
        # Products cannot overflow here: weights, their products and tokens end at 1e100.
        for head in self.layer.heads:
            score = head.key.T @ (head.query @ self.seen(self.token[:, None]))
            require_moderate("the scores of the queries' tokens", every.T @ score)
            written = head.output @ (head.value @ every)
            require_moderate("the values of the queries' tokens", written)

    @property
    def token(self) -> Floats:
        """The shared last token x_0, (d,)."""
        return self.queries[0][:, -1]

    @property
    def count(self) -> int:
        """How many queries there are, k."""
        return len(self.queries)

    def seen(self, tokens: Floats) -> Floats:
        """What attention reads of tokens (d, n): their normalised form, if there is a front."""
        return tokens if self.front is None else self.front(tokens)


def require_moderate(name: str, values: Floats) -> None:
    """Refuse numbers whose squares would overflow."""
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= LARGEST:
        raise UserError(
            name, "be at most 1e100 in size", got=f"{largest:.6g}", remedy="scale the numbers down"
        )


def require_usable(layer: LayerWeights) -> None:
    """Refuse heads of size 0, and weights whose products come near overflow."""
    if layer.dim == 0:
        raise UserError("the width d", "be at least 1", got=0, remedy="give tokens of some number")
    for number, head in enumerate(layer.heads):
        sizes = {"queries and keys": len(head.query), "values": len(head.value)}
        for part, size in sizes.items():
            if size == 0:
                raise UserError(
                    f"head {number}",
                    f"have {part} of size 1 or more",
                    got=f"{part} of size 0",
                    remedy="leave the head out, or give it a row of zeros",
                )
        _require_product(f"W_k^T W_q of head {number}", head.key, head.query)
        _require_product(f"W_o W_v of head {number}", head.output, head.value)
    _require_product("W_2 W_1", layer.w2, layer.w1)
    require_moderate("the biases of the MLP", np.concatenate([layer.b1, layer.b2]))


def _require_product(name: str, left: Floats, right: Floats) -> None:
    """Refuse two matrices if a number of theirs or a limit on their product is too large."""
    for one in (left, right):
        require_moderate(f"the numbers in {name}", one)
    most = float(np.abs(left).max(initial=0.0)) * float(np.abs(right).max(initial=0.0))
    require_moderate(f"the product {name}", np.array([most * max(right.shape)]))


def _require_number(name: str, value: object, least: float) -> None:
    """Refuse anything but a finite number from `least` to 1e100."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not least <= float(value) <= LARGEST:  # type: ignore[arg-type]
        raise UserError(
            name, f"be a number from {least:g} to 1e100", got=repr(value), remedy="mend it"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """What one head, or each of several, has summed up over some tokens."""

    mean: Floats  # (..., h, d) a or A: the attention output of each head over these tokens alone
    log_weight: Floats  # (..., h) log Z


def statistics(setting: SharedQuery, tokens: Floats, *, distance: int = 0) -> Statistics:
    """Sum tokens up as each head sees them from the shared last token."""
    seen = setting.seen(tokens)
    query = setting.seen(setting.token[:, None])[:, 0]
    steps = distance + np.arange(tokens.shape[1] - 1, -1, -1)
    means, logs = [], []
    for head in setting.layer.heads:
        scores = _scores(head, seen, query, steps, setting.rotary_base)
        log_weight = _log_sum_exp(scores)
        means.append(head.output @ (head.value @ (seen @ np.exp(scores - log_weight))))
        logs.append(log_weight)
    return Statistics(mean=np.stack(means), log_weight=np.array(logs))


def query_statistics(setting: SharedQuery) -> Statistics:
    """The statistics (a_j^i, log Z_j^i) of every query: means (k, h, d), logs (k, h)."""
    each = [statistics(setting, query) for query in setting.queries]
    return Statistics(
        mean=np.stack([one.mean for one in each]),
        log_weight=np.stack([one.log_weight for one in each]),
    )


def offsets(queries: Statistics, prompt: Statistics) -> Floats:
    """Attention's output u_j - x_0 behind a prompt with given statistics."""
    whole = np.logaddexp(queries.log_weight, prompt.log_weight)
    own, other = np.exp(queries.log_weight - whole), np.exp(prompt.log_weight - whole)
    parts = own[..., None] * queries.mean + other[..., None] * prompt.mean
    return np.asarray(parts.sum(axis=1))


def attend(setting: SharedQuery, prompt: Floats) -> Floats:
    """Attention's output u_j - x_0 behind an actual prompt, straight from Definition 2.1."""
    whole = [np.concatenate([prompt, query], axis=1) for query in setting.queries]
    return np.stack([statistics(setting, tokens).mean.sum(axis=0) for tokens in whole])


def feed_forward(layer: LayerWeights, tokens: Floats) -> Floats:
    """The MLP with its residual on rows of tokens (..., d)."""
    hidden = np.maximum(tokens @ layer.w1.T + layer.b1, 0.0)
    return np.asarray(tokens + hidden @ layer.w2.T + layer.b2)


def answers(setting: SharedQuery, prompt: Floats) -> Floats:
    """The layer's last output column for every query behind a prompt, (k, d)."""
    return feed_forward(setting.layer, setting.token + attend(setting, prompt))


def score_vectors(setting: SharedQuery) -> Floats:
    """The vectors c_i = W_k^T W_q x_0 by which heads score tokens, (h, d); without rotation."""
    query = setting.seen(setting.token[:, None])[:, 0]
    return np.stack([head.key.T @ (head.query @ query) for head in setting.layer.heads])


def value_maps(layer: LayerWeights) -> tuple[Floats, ...]:
    """The matrices V_i = W_o W_v of the heads, each (d, d)."""
    return tuple(np.asarray(head.output @ head.value) for head in layer.heads)


def _scores(
    head: HeadWeights, tokens: Floats, query: Floats, steps: NDArray[np.int64], base: float | None
) -> Floats:
    keys, asked = head.key @ tokens, head.query @ query
    if base is not None:
        keys = _turned(keys, steps, base)
    return np.asarray(asked @ keys)


def _turned(keys: Floats, steps: NDArray[np.int64], base: float) -> Floats:
    """Keys as the query sees them `steps` positions later: turned back by that distance."""
    half = keys.shape[0] // 2
    angles = -np.outer(base ** (-np.arange(half) / half), steps)
    first, second = keys[:half], keys[half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin])


def _log_sum_exp(scores: Floats) -> float:
    if scores.size == 0:
        return float("-inf")
    top = scores.max()
    return float(top + np.log(np.exp(scores - top).sum()))


def shared_query(
    layer: LayerWeights, token: Floats, contexts: Sequence[Floats], **more: object
) -> SharedQuery:
    """Queries [x_j, x_0] of a token each, as both papers take them.

    Args:
        layer: The layer.
        token: The shared x_0, (d,).
        contexts: The tokens x_j, each (d,).
        **more: As `SharedQuery` takes: front, rotary_base.

    Returns:
        The setting.

    Raises:
        UserError: As `SharedQuery`.
    """
    pairs = tuple(np.stack([context, token], axis=1) for context in contexts)
    return SharedQuery(layer=layer, queries=pairs, **more)  # type: ignore[arg-type]


def proved_means(setting: SharedQuery, tokens: Floats) -> tuple[MatrixBall, ...]:
    """Enclose each head's mean over some tokens, which `statistics` estimates."""
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
