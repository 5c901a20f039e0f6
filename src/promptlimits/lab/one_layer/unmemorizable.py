"""Data that a layer answers wrongly behind every prompt, in closed form.

**One head, two queries** (after [@wang2023], Theorem 2; its search by gradient is replaced).
A = W_k^T W_q, V = W_o W_v, x_0 with q := x_0^T A x_0 != 0, eta = V^(-T) A x_0. Take offsets t_1,
t_2 and orthonormal c_1, c_2 orthogonal to both with c_i . eta != 0, and

    x_i = 2 gamma_i V^(-1) c_i - x_0,     gamma_i = q / (c_i . eta),     y_i = MLP(x_0 + t_i).

Then x_i and x_0 have equal scores, so a_i = V(x_i + x_0)/2 = gamma_i c_i. A prompt with sum of
exponentials Z_P that meets both answers would have
(1 + b_1) t_1 - b_1 a_1 = (1 + b_2) t_2 - b_2 a_2 with b_i = Z_i/Z_P > 0, which
a_1 outside span{t_1, t_2, a_2} forbids. []

**Directions.** For any c_i orthogonal to the t_i, c_i . eta can be 0, for both if eta lies in the
span of the t_i. So c_i = (e +- f)/sqrt(2), where e is eta projected beside the offsets; offsets
drawn here are orthogonal to eta, so that e = eta.

**Any number of heads.** No condition on V or A is needed if there is room: for any h + 1 queries
with one last token and E the span of their a_j^i, h + 1 orthonormal offsets in the complement
of E have a floor of r/sqrt(h+1) under their errors (`error_floor`). Room means
d >= dim E + h + 1, and (h+1)^2 always suffices.

**What is checked,** on the floats that are returned: V regular (exact rank), q != 0 (ball), ||W_1||
||W_2|| < 1 (proved norm), a_1 outside the span (the Gram determinant of t_1, t_2, a_2, a_1 is above
0, in balls), and the floor under the error of every prompt, (1-c) r/sqrt(2) for two orthogonal
offsets of length r, rounding of the answers taken off. A floor above 0 is itself a proof; data of
which nothing is proved are not returned.

**Rounded answers.** The floats y_j returned are within some rho of MLP(x_0 + t_j), so a pre-image
of y_j, if there is one, is within rho/(1-c) of x_0 + t_j: the balls around t_j are that wide, and
the span, too, is proved for the numbers returned.

The sharp constant is 1/sqrt(2), where [@meyer2025] has 1/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
from flint import arb, arb_mat

from promptlimits.base.bound import PRECISION_BITS, Assumption, Source
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.data_set import DataSet
from promptlimits.lab.one_layer.error_floor import ErrorFloor, contraction, error_floor
from promptlimits.lab.one_layer.reachable import value_ranks
from promptlimits.lab.one_layer.setting import (
    Floats,
    SharedQuery,
    feed_forward,
    proved_means,
    query_statistics,
    score_vectors,
    shared_query,
    value_maps,
)
from promptlimits.lipschitz.balls.matrix import MatrixBall, float_down, float_up
from promptlimits.lipschitz.balls.rounding import dot
from promptlimits.nets.paper.weights import LayerWeights

PAIR_SOURCE: Final = Source(
    reference="wang2023", statement="Theorem 2, data in closed form", form="proved here"
)
HEADS_SOURCE: Final = Source(
    reference="promptlimits", statement="h + 1 queries that no prompt answers", form="proved here"
)
_LEAST_SCORE: Final = 1e-9
"""x_0^T A x_0 below this share of ||A|| |x_0|^2 makes tokens too long to be of use."""

_ROOM: Final = 1e-10
_ONE_TO_ONE: Final = Assumption(text="The MLP is one to one: ||W_1|| ||W_2|| < 1.", holds=True)


def unmemorizable_pair(layer: LayerWeights, generator: np.random.Generator) -> DataSet:
    """Two queries and answers that one head meets behind no prompt of any length."""
    _require_one_regular_head(layer)
    token = _shared_token(layer)
    room = contraction(layer)
    require_injective(layer, room)
    bare = SharedQuery(layer=layer, queries=(token[:, None],))
    value, score = value_maps(layer)[0], score_vectors(bare)[0]
    asked = float(score @ token)
    eta = _solved(value.T, score)
    offsets = _drawn_offsets(eta, generator)
    first, second = _directions(eta, offsets, generator)
    contexts = [
        2 * asked / float(side @ eta) * _solved(value, side) - token for side in (first, second)
    ]
    setting = shared_query(layer, token, contexts)
    answers = _answered(setting, offsets)
    outside = is_outside(setting, offsets[0], offsets[1], answers[1] / room)
    assumptions = (
        Assumption(text="One head.", holds=True),
        Assumption(text="V = W_o W_v is regular.", holds=True),
        Assumption(text="x_0^T A x_0 is not 0.", holds=_score_is_proved(setting)),
        _ONE_TO_ONE,
        Assumption(text="a_1 lies outside span{t_1, t_2, a_2}.", holds=outside),
    )
    proved = _proved(setting, offsets, answers[1], by_the_span=outside)
    return _data(setting, offsets, answers[0], proved, PAIR_SOURCE, assumptions)


def unmemorizable_set(layer: LayerWeights, generator: np.random.Generator) -> DataSet:
    """h + 1 queries and answers that a layer of h heads meets behind no prompt of any length."""
    heads, dim = len(layer.heads), layer.dim
    require_injective(layer, contraction(layer))
    tokens = generator.standard_normal((heads + 2, dim))
    setting = shared_query(layer, tokens[0], list(tokens[1:]))
    known = query_statistics(setting).mean.reshape(-1, dim)
    beside = _beside(known)
    if len(beside) <= heads:
        raise UserError(
            "the width d",
            f"leave {heads + 1} directions beside the {dim - len(beside)} that the queries use",
            got=dim,
            remedy=f"take d of at least {(heads + 1) ** 2} for {heads} heads",
        )
    mixed = np.linalg.qr(generator.standard_normal((len(beside), heads + 1)))[0]
    offsets = mixed.T @ beside
    answers = _answered(setting, offsets)
    proved = _proved(setting, offsets, answers[1], by_the_span=False)
    # The rank of the a_j^i is that of floats; what is proved is the floor, whatever the rank is.
    assumptions = (
        Assumption(text="h + 1 offsets leave span(a_j^i): their floor is above 0.", holds=True),
        _ONE_TO_ONE,
    )
    return _data(setting, offsets, answers[0], proved, HEADS_SOURCE, assumptions)


def is_outside(
    setting: SharedQuery, first: Floats, second: Floats, away: Fraction = Fraction(0)
) -> bool:
    """Prove that a_1 lies outside span{t_1, t_2, a_2} for the two queries of one head."""
    means = [proved_means(setting, query)[0] for query in setting.queries]
    with working_precision(PRECISION_BITS):
        width = arb(0, arb(away.numerator) / away.denominator)
        columns = [[arb(float(x)) + width for x in one] for one in (first, second)]
        columns += [[arb(float(x), mean.radius) for x in mean.center[:, 0]] for mean in means]
        return independent(columns)


def independent(columns: Sequence[Sequence[arb]]) -> bool:
    """Prove that vectors given as balls are independent, by their Gram determinant."""
    scaled = []
    for column in columns:
        size = float(dot(column, column).mid()) ** 0.5
        scaled.append([x / arb(size or 1.0) for x in column])
    gram = arb_mat([[dot(u, v) for v in scaled] for u in scaled])
    return bool(gram.det() > 0)


def answer_ball(layer: LayerWeights, token: MatrixBall) -> MatrixBall:
    """Enclose MLP(x), residual included; ReLU moves no two numbers apart."""
    bias = MatrixBall.exact(layer.b2)
    if layer.hidden == 0:
        return token + bias
    hidden = MatrixBall.exact(layer.w1) @ token + MatrixBall.exact(layer.b1)
    active = MatrixBall(center=np.maximum(hidden.center, 0.0), radius=hidden.radius)
    return MatrixBall.exact(layer.w2) @ active + token + bias


def answers_for(layer: LayerWeights, tokens: Floats, offsets: Floats) -> tuple[Floats, Fraction]:
    """Answers MLP(x_j + t_j) in floats, and how far rounding takes them from the exact ones."""
    answers = feed_forward(layer, tokens + offsets)
    exact = MatrixBall.exact
    errors = (
        (answer_ball(layer, exact(x) + exact(t)) - exact(y)).frobenius_upper()
        for x, t, y in zip(tokens, offsets, answers, strict=True)
    )
    return answers, Fraction(max(errors))


def proved_of(floor: ErrorFloor, slack: Fraction, *, by_the_span: bool = False) -> dict[str, Any]:
    """A floor as plain JSON, the rounding of the answers taken off."""
    left = max(floor.output_error - slack, Fraction(0))
    return {
        "no_prompt_of_any_length": left > 0 or (by_the_span and floor.contraction > 0),
        "largest_error_at_least": float_down(left),
        "largest_error_before_the_mlp_at_least": float_down(floor.error),
        "mlp_contraction": float_down(floor.contraction),
        "rounding_of_answers_at_most": float_up(slack),
        "statement": floor.source.statement,
        "by_the_span": by_the_span,
        "the_span_speaks_of": "answers" if floor.contraction else "the layer's values at offsets",
    }


def _answered(setting: SharedQuery, offsets: Floats) -> tuple[Floats, Fraction]:
    tokens = np.broadcast_to(setting.token, offsets.shape)
    return answers_for(setting.layer, np.ascontiguousarray(tokens), offsets)


def _proved(
    setting: SharedQuery, offsets: Floats, slack: Fraction, *, by_the_span: bool
) -> dict[str, Any]:
    proved = proved_of(error_floor(setting, offsets), slack, by_the_span=by_the_span)
    if not by_the_span and not proved["no_prompt_of_any_length"]:
        raise RunFailed(
            "nothing is proved of the data that were built: rounding hides the floor under the "
            f"error ({proved['largest_error_before_the_mlp_at_least']:.3g} before the MLP, answers "
            f"rounded by up to {proved['rounding_of_answers_at_most']:.3g})",
            remedy="scale the weights towards 1, or try another seed",
        )
    return proved


def _data(
    setting: SharedQuery,
    offsets: Floats,
    answers: Floats,
    proved: dict[str, Any],
    source: Source,
    assumptions: tuple[Assumption, ...],
) -> DataSet:
    return DataSet(
        queries=setting.queries,
        answers=answers,
        offsets=offsets,
        proved=proved | {"data_after": source.to_json()},
        assumptions=assumptions,
    )


def _require_one_regular_head(layer: LayerWeights) -> None:
    if len(layer.heads) != 1:
        raise UserError(
            "the layer",
            "have one head for the two queries of wang2023",
            got=f"{len(layer.heads)} heads",
            remedy="`--kind any` (unmemorizable_set) gives h + 1 queries for h heads",
        )
    if layer.dim < 4:
        raise UserError("the width d", "be at least 4", got=layer.dim, remedy="take d of 4 or more")
    if value_ranks(layer)[0] < layer.dim:
        raise UserError(
            "V = W_o W_v",
            "be regular",
            got=f"rank {value_ranks(layer)[0]} of {layer.dim}",
            remedy="`--kind any` (unmemorizable_set) needs no such condition",
        )


def require_injective(layer: LayerWeights, room: Fraction) -> None:
    """Raise unless the MLP is proved one to one."""
    if room == 0:
        raise UserError(
            "||W_1|| ||W_2||",
            "be below 1, so that the MLP is one to one",
            got=f"{layer.hidden} neurons for which that is not proved",
            remedy="scale the MLP down",
        )


def _shared_token(layer: LayerWeights) -> Floats:
    """The x_0 with the largest score of itself."""
    head = layer.heads[0]
    form = head.key.T @ head.query
    symmetric = (form + form.T) / 2
    values, vectors = np.linalg.eigh(symmetric)
    token = vectors[:, int(np.abs(values).argmax())]
    asked = abs(float(token @ symmetric @ token))
    if asked <= _LEAST_SCORE * float(np.linalg.norm(form)) * float(token @ token):
        raise UserError(
            "x_0^T A x_0",
            "not be 0 for every x_0, A = W_k^T W_q",
            got=asked,
            remedy="take a layer whose A is not skew",
        )
    return np.asarray(token)


def _drawn_offsets(eta: Floats, generator: np.random.Generator) -> Floats:
    """Two orthonormal offsets, orthogonal to eta, as rows."""
    drawn = np.concatenate([eta[:, None], generator.standard_normal((len(eta), 2))], axis=1)
    return np.ascontiguousarray(np.linalg.qr(drawn)[0][:, 1:].T)


def _directions(
    eta: Floats, offsets: Floats, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Orthonormal c_1, c_2 beside the offsets, neither orthogonal to eta."""
    beside = _beside(offsets)
    seen = beside @ eta
    drawn = np.stack([seen / np.linalg.norm(seen), generator.standard_normal(len(seen))], axis=1)
    basis = np.linalg.qr(drawn)[0]
    along, across = basis[:, 0] @ beside, basis[:, 1] @ beside
    return (along + across) / np.sqrt(2), (along - across) / np.sqrt(2)


def _beside(rows: Floats) -> Floats:
    """An orthonormal basis, as rows, of the complement of a row space."""
    _, sizes, right = np.linalg.svd(rows)
    used = int((sizes > _ROOM * max(float(sizes[0]), 1e-300)).sum())
    return np.asarray(right[used:])


def _solved(matrix: Floats, vector: Floats) -> Floats:
    """The solution for a matrix of full exact rank, which may yet be singular in floats."""
    try:
        found = np.linalg.solve(matrix, vector)
    except np.linalg.LinAlgError:
        found = np.full_like(vector, np.inf)
    if not np.isfinite(found).all():
        raise RunFailed(
            "V = W_o W_v is regular, but cannot be inverted in floats",
            remedy="`--kind any` (unmemorizable_set) needs no inverse",
        )
    return np.asarray(found)


def _score_is_proved(setting: SharedQuery) -> bool:
    head = setting.layer.heads[0]
    token = MatrixBall.exact(np.ascontiguousarray(setting.token))
    score = (MatrixBall.exact(head.key) @ token).T @ (MatrixBall.exact(head.query) @ token)
    return abs(float(score.center[0, 0])) > score.radius
