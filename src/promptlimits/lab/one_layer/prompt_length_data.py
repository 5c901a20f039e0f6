"""n answers: data that take a prompt of n/h tokens, and a change of the MLP that does it.

**Long prompts**, after [@wang2023], Theorem 3.

**Statement** (proved here). Layer of h heads, n <= d - h, MLP one to one. Let both tokens of
query j be multiples of one vector w, [r_j w, s_j w], and let V_1 w, .., V_h w, t_1, .., t_n be
independent. A prompt that makes the layer answer MLP(s_j w + t_j) to every query j has at least
n/h tokens.

**Proof.** Head i alone writes a multiple of V_i w for each query. Behind a prompt P,
t_j less a combination of the V_i w lies in the sum of the V_i span(P), of dimension at most
h m_p. These n vectors are independent whatever the combinations, so h m_p >= n. []

**Floor for shorter prompts** (proved here). With pi the projection beside the V_i w, the columns
pi(u_j - s_j w) have rank at most h m_p: Theorem 5 (`error_floor`) holds with h m_p in the place
of h. For orthonormal t_j, max_j e_j >= ((n - h m_p)/n)^(1/2).

The last tokens differ from query to query, as in the paper: with one last token no prompt of any
length would do from n = 2 on for usual heads (`reachable`), and the number n would say little.

**In floats.** w has short entries and r_j, s_j are small whole numbers, so that the products are
exact; independence is proved by a Gram determinant in balls. That a_j is a multiple of V_i w is
then exact, too, so a known share costs nothing.

**Rounded answers.** The floats returned may have other pre-images than the t_j. So the length is
proved from floors above the rounding of the answers: one above 0 for m_p tokens excludes every
prompt of m_p tokens or fewer, as theirs are matrices of no higher rank. `prompt_tokens_at_least`
speaks of the numbers returned, and is below n/h if rounding hides the last floors.

**Not claimed:** that n/h tokens suffice.

**A LoRA-like change of the MLP** that memorises any n answers, after [@wang2023], Lemma 5. Let f >=
n hidden neurons and let the vectors z_1, .., z_n after attention (no prompt) be distinct. A change
of the MLP by (n + 1) d + 2 n numbers gives every answer exactly.

**Proof.** Take u with distinct u.z_i, sorted, thresholds th_1 < u.z_1 < th_2 < .. < u.z_n, and n
neurons S. With W_1 += c 1_S u^T (rank one but for the scales c_k) and b_1 -= c th, for c so
large that c (u.z - th) outweighs what the neuron had, neuron k is active on z_i exactly if
k <= i. The n x n matrix of activations is triangular with a positive diagonal, so n new columns
of W_2 solve for the answers. Numbers: d for u, n thresholds, n scales, n d in W_2. []

Such a change always exists; a prompt that does the same need not (`unmemorizable`).

**In floats.** Of several directions u the one is taken whose values u.z_i lie most evenly; the
triangular system is solved once and its error once more. The result is checked by running the
changed layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
from flint import arb

from promptlimits.base.bound import PRECISION_BITS, Assumption, Source
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.exact import working_precision
from promptlimits.base.files import JsonObject
from promptlimits.bounds.prompt_parameters import trained_numbers
from promptlimits.lab.one_layer.data_set import DataSet
from promptlimits.lab.one_layer.error_floor import ErrorFloor, contraction, tail_floor
from promptlimits.lab.one_layer.setting import Floats, SharedQuery, attend, feed_forward, value_maps
from promptlimits.lab.one_layer.unmemorizable import answers_for, independent, require_injective
from promptlimits.lipschitz.balls.matrix import MatrixBall, float_down, float_up
from promptlimits.nets.paper.weights import LayerWeights, exact_array

SOURCE: Final = Source(
    reference="wang2023", statement="Theorem 3, any number of heads", form="proved here"
)
_GRID: Final = 2.0**-20
"""Entries of w are multiples of this, so that r w is exact for small whole r."""

_LARGEST: Final = 1024
_MOST_FLOORS: Final = 64


def prompt_length_data(layer: LayerWeights, pairs: int, generator: np.random.Generator) -> DataSet:
    """n queries and answers that take a prompt of at least n/h tokens."""
    heads, dim = len(layer.heads), layer.dim
    least = trained_numbers(pairs=pairs, dim=dim, heads=heads).prompt_tokens
    if pairs > _LARGEST:
        raise UserError("pairs", f"be at most {_LARGEST:,}", got=pairs, remedy="give fewer")
    require_injective(layer, contraction(layer))
    direction = np.rint(generator.standard_normal(dim) / dim**0.5 / _GRID) * _GRID
    images = np.stack([value @ direction for value in value_maps(layer)])
    offsets = _beside(images, pairs, generator)
    if not _are_independent(layer, direction, offsets):
        raise UserError(
            "V_1 w, .., V_h w",
            "be independent for some w",
            got="dependent vectors",
            remedy="use heads of different value maps, none of them 0",
        )
    order = np.arange(1.0, pairs + 1)
    # s_j from 1 on and r_j = -s_j: short tokens, and last tokens that all differ.
    last, first = np.outer(order, direction), np.outer(-order, direction)
    queries = tuple(np.stack([one, two], axis=1) for one, two in zip(first, last, strict=True))
    answers, slack = answers_for(layer, last, offsets)
    proved = _least_length(layer, direction, offsets, slack)
    floors = [
        _shown(length_floor(layer, direction, offsets, tokens), tokens, slack)
        for tokens in range(1, min(proved, _MOST_FLOORS + 1))
    ]
    return DataSet(
        queries=queries,
        answers=answers,
        offsets=offsets,
        proved={
            "prompt_tokens_at_least": proved,
            "prompt_numbers_at_least": proved * dim,
            "prompt_tokens_at_least_for_unrounded_answers": least,
            "rounding_of_answers_at_most": float_up(slack),
            "errors_of_shorter_prompts": floors,
            "data_after": SOURCE.to_json(),
        },
        assumptions=(
            Assumption(text="The MLP is one to one: ||W_1|| ||W_2|| < 1.", holds=True),
            Assumption(text="V_1 w, .., V_h w, t_1, .., t_n are independent.", holds=True),
        ),
    )


def length_floor(
    layer: LayerWeights, direction: Floats, offsets: Floats, prompt_tokens: int
) -> ErrorFloor:
    """The floor under the errors of all prompts of a given length on this data."""
    exact = MatrixBall.exact
    images = [exact(head.output) @ (exact(head.value) @ exact(direction)) for head in layer.heads]
    # What a head adds from the query is any multiple of V_i w. Its multiple is at most the
    # largest coordinate along w, here n; scaled so, shares of [-1, 1] are what enters.
    most = float(len(offsets))
    known = [image.scaled(most) for image in images]
    return tail_floor(
        exact(np.ascontiguousarray(offsets.T)),
        [known] * len(offsets),
        rank=len(layer.heads) * prompt_tokens,
        contraction=contraction(layer),
        weights=[1] * len(offsets),  # the best for offsets of one length
    )


def _least_length(layer: LayerWeights, direction: Floats, offsets: Floats, slack: Fraction) -> int:
    """One more than the longest prompts found to be excluded for the rounded answers."""
    excluded, open_ = -1, -(-len(offsets) // len(layer.heads))
    tried = open_ - 1
    while excluded + 1 < open_:
        if length_floor(layer, direction, offsets, tried).output_error > slack:
            excluded = tried
        else:
            open_ = tried
        tried = (excluded + open_) // 2
    if excluded < 0:
        raise RunFailed(
            "nothing is proved of the data that were built: the answers are rounded by up to "
            f"{float_up(slack):.3g}, more than the floor under the error of the empty prompt",
            remedy="scale the weights towards 1, or give fewer pairs",
        )
    return excluded + 1


def outputs_behind(layer: LayerWeights, queries: tuple[Floats, ...], prompt: Floats) -> Floats:
    """The layer's last output columns for queries whose last tokens may differ, (k, d)."""
    each = [SharedQuery(layer=layer, queries=(query,)) for query in queries]
    moved = np.concatenate([attend(one, prompt) for one in each])
    tokens = np.stack([one.token for one in each])
    return feed_forward(layer, tokens + moved)


def _beside(images: Floats, pairs: int, generator: np.random.Generator) -> Floats:
    """Orthonormal rows, orthogonal to the given ones."""
    drawn = np.concatenate([images, generator.standard_normal((pairs, images.shape[1]))])
    return np.asarray(np.linalg.qr(drawn.T)[0][:, len(images) :].T)


def _are_independent(layer: LayerWeights, direction: Floats, offsets: Floats) -> bool:
    exact = MatrixBall.exact
    images = [exact(head.output) @ (exact(head.value) @ exact(direction)) for head in layer.heads]
    with working_precision(PRECISION_BITS):
        columns = [[arb(float(x), image.radius) for x in image.center[:, 0]] for image in images]
        columns += [[arb(float(x)) for x in row] for row in offsets]
        return independent(columns)


def _shown(floor: ErrorFloor, tokens: int, slack: Fraction) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens,
        "largest_error_at_least": float_down(max(floor.output_error - slack, Fraction(0))),
        "largest_error_before_the_mlp_at_least": float_down(floor.error),
    }


_DIRECTIONS: Final = 200
_LEAST_GAP: Final = 1e-9
_OUTWEIGHS: Final = 16.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LoraUpdate:
    """The trained numbers of the change, and what it does."""

    direction: Floats  # u, (d,)
    thresholds: Floats  # th, (n,)
    scales: Floats  # c_k, (n,)
    columns: Floats  # new columns of W_2 at the first n neurons, (d, n)
    layer: LayerWeights  # the layer with the change made
    error: float  # largest Euclidean error of an answer, measured on the changed layer

    @property
    def numbers(self) -> int:
        """How many numbers were trained: (n + 1) d + 2 n."""
        parts = (self.direction, self.thresholds, self.scales, self.columns)
        return sum(part.size for part in parts)

    def to_json(self) -> JsonObject:
        """As plain JSON: enough to make the change again, and what was measured."""
        count = len(self.scales)
        return {
            "change": f"W_1[:{count}] += outer(scales, direction), b_1[:{count}] -= scales * "
            f"thresholds, W_2[:, :{count}] = columns",
            "direction": self.direction.tolist(),
            "thresholds": self.thresholds.tolist(),
            "scales": self.scales.tolist(),
            "columns": self.columns.tolist(),
            "numbers": self.numbers,
            "largest_error_measured": self.error,
        }


def lora_update(layer: LayerWeights, data: DataSet, generator: np.random.Generator) -> LoraUpdate:
    """Construct the change for given queries and answers."""
    count = len(data.queries)
    if layer.hidden < count:
        raise UserError(
            "the hidden neurons",
            f"be at least as many as the {count} pairs",
            got=layer.hidden,
            remedy="give fewer pairs or widen the MLP",
        )
    answers = exact_array("the answers", data.answers, (count, layer.dim))
    reached = np.stack([_after_attention(layer, query) for query in data.queries])
    direction, order = _direction(reached, generator)
    values = reached[order] @ direction
    gaps = np.diff(values, prepend=values[0] - np.diff(values).mean() if count > 1 else values - 1)
    thresholds = values - gaps / 2
    plain = reached[order] @ layer.w1[:count].T + layer.b1[:count]
    margin = np.abs(values[:, None] - thresholds)
    scales = _OUTWEIGHS * (np.abs(plain) / margin).max(axis=0) + 1 / gaps
    w1, b1 = layer.w1.copy(), layer.b1.copy()
    w1[:count] += np.outer(scales, direction)
    b1[:count] -= scales * thresholds
    w2 = layer.w2.copy()
    w2[:, :count] = 0.0
    wanted = answers[order] - reached[order] - layer.b2
    wanted = wanted - np.maximum(reached[order] @ w1.T + b1, 0.0) @ w2.T
    active = np.maximum(reached[order] @ w1[:count].T + b1[:count], 0.0)
    columns = np.linalg.solve(active, wanted)
    columns += np.linalg.solve(active, wanted - active @ columns)
    w2[:, :count] = columns.T
    changed = replace(layer, w1=w1, b1=b1, w2=w2)
    got = outputs_behind(changed, data.queries, np.zeros((layer.dim, 0)))
    return LoraUpdate(
        direction=direction,
        thresholds=thresholds,
        scales=scales,
        columns=w2[:, :count],
        layer=changed,
        error=float(np.linalg.norm(got - answers, axis=1).max()),
    )


def _after_attention(layer: LayerWeights, query: Floats) -> Floats:
    setting = SharedQuery(layer=layer, queries=(query,))
    return np.asarray(setting.token + attend(setting, np.zeros((layer.dim, 0)))[0])


def _direction(reached: Floats, generator: np.random.Generator) -> tuple[Floats, np.ndarray]:
    """A unit vector along which the points are as even as possible, and their order."""
    away = reached - reached.mean(axis=0)
    principal = np.linalg.svd(away)[2][: min(len(reached), reached.shape[1])]
    drawn = generator.standard_normal((_DIRECTIONS, reached.shape[1]))
    candidates = np.concatenate([principal, drawn @ principal.T @ principal])
    candidates = candidates / np.maximum(np.linalg.norm(candidates, axis=1), 1e-300)[:, None]
    best, widest = candidates[0], -1.0
    for each in candidates:
        values = np.sort(reached @ each)
        spread = max(float(values[-1] - values[0]), 1e-300)
        even = float(np.diff(values).min()) / spread if len(values) > 1 else 1.0
        if spread > _LEAST_GAP * (1 + np.abs(values).max()) and even > widest:
            best, widest = each, even
    if len(reached) > 1 and widest <= _LEAST_GAP:
        raise UserError(
            "the vectors after attention",
            "be distinct",
            got="two equal ones",
            remedy="no MLP answers them differently: change the queries",
        )
    return best, np.argsort(reached @ best)
