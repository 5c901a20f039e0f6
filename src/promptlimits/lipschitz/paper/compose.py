"""Lipschitz constants of the papers' transformer: layers composed, each with its own radius.

**Radii.** Tokens that enter a layer in a ball of radius r leave attention and residual within
r + r M_0, M_0 = max_u sum_h |W_h^T u| (each head averages tokens of the ball), and then
`feedforward` bounds the MLP's output. A bound that keeps r at every layer, as [@meyer2025]
uses Propositions 2.11 and 2.12, is no bound: tokens leave the ball.
`as_the_paper_uses_it` gives that number, marked as resting on an assumption that is not proved.

**Methods.** Lambda is the MLP's constant; kappa, M, N of `attention` at the layer's radius.

| method | norm | one layer |
|---|---|---|
| token | max over tokens | Lambda (1 + kappa + M) |
| token-prompt | the same, prompt to query outputs | see below |
| frobenius | Frobenius | Lambda (1 + kappa + N^(1/2) M), N = n; last layer: rows read |
| meanfield | W_q | Lambda (1 + kappa + M_q), unmasked |
| published-frobenius | Frobenius | (1 + ||W_1|| ||W_2||)(1 + Castin et al.) |
| published-meanfield | W_2 | (1 + ||W_1|| ||W_2||)(1 + Geshkovski et al.), unmasked |

**token-prompt (Theorem D through all layers).** Only the prompt changes, at most 1 in each
token. Let prompt tokens entering layer l change by at most p_l and query tokens by q_l:
p_0 = 1, q_0 = 0. A row's covariance term sees its own change, its mixing term those it reads:

    p_{l+1} = Lambda ( (1 + kappa) p_l + M max(p_l, q_l) )      (masked: max(..) = p_l, as
                                                               prompt rows never see queries)
    q_{l+1} = Lambda ( (1 + kappa) q_l + M max(p_l, q_l) ).

The query outputs move by at most q_L: for one layer Lambda M, without residual or covariance. []

The Frobenius and mean-field rows hold with a residual as |dx_i + df_i| <= |dx_i| + |df_i|, in
the latter along one coupling. Composition of maps multiplies constants on the right domains:
convex products of balls, so that a bound on the derivative is a Lipschitz constant.

Sources: proved here, or as published and composed with proved radii. *Cost:* that of
`head_norms` and `feed_forward_norms` for each layer, shared by all methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias, get_args

from flint import arb

from promptlimits.base.bound import (
    PRECISION_BITS,
    Assumption,
    Exact,
    LogBound,
    Source,
    product,
    working_precision,
)
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.lipschitz.balls.rounding import ball, require_radius, upper, upper_log_bound
from promptlimits.lipschitz.paper.attention import (
    ASSUMPTIONS,
    covariance_limit,
    meanfield_limit,
    mixing_limit,
    output_limit,
    require_order,
)
from promptlimits.lipschitz.paper.castin2024 import castin2024_limit
from promptlimits.lipschitz.paper.feedforward import FeedForwardNorms, feed_forward_norms
from promptlimits.lipschitz.paper.geshkovski2023 import geshkovski2023_limit
from promptlimits.lipschitz.paper.head_norms import HeadNorms, head_norms
from promptlimits.nets.paper.weights import LayerWeights, TransformerWeights

Norm: TypeAlias = Literal["token", "frobenius", "W_q"]
Method: TypeAlias = Literal[
    "token", "token-prompt", "frobenius", "meanfield", "published-frobenius", "published-meanfield"
]
NORM_OF_METHOD: Final[dict[str, Norm]] = {
    "token": "token",
    "token-prompt": "token",
    "frobenius": "frobenius",
    "meanfield": "W_q",
    "published-frobenius": "frobenius",
    "published-meanfield": "W_q",
}
PROMPT_ONLY: Final = Assumption(
    text="Only prompt tokens vary, and only the outputs of query tokens, which come after the "
    "prompt, are read.",
    holds=None,
)
SAME_RADIUS: Final = Assumption(
    text="Tokens stay within the first radius at every layer: NOT proved, and false in general.",
    holds=None,
)


@dataclass(frozen=True, kw_only=True)
class LipschitzBound:
    """An upper bound on the Lipschitz constant of a transformer on token balls.

    Attributes:
        bound: The bound.
        norm: Between which norms: "token" is the largest length of a token.
        method: How it was found.
        radii: Proved token radius entering each layer.
        layers: The constant of each layer; for "token-prompt", the sensitivity q of the query
            tokens to the prompt after each layer, the last of which is the bound.
        assumptions: What it rests on.
    """

    bound: LogBound
    norm: Norm
    method: str
    radii: tuple[Fraction, ...]
    layers: tuple[LogBound, ...]
    assumptions: tuple[Assumption, ...]


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """What all methods need to know about one layer: proved norms and the radius it gets."""

    heads: HeadNorms
    mlp: FeedForwardNorms
    radius: Fraction


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """How many columns there are, how many are read at the end, and the order of W_q."""

    tokens: int | None
    queries: int | None
    order: Exact
    masked: bool


def token_radii(weights: TransformerWeights, *, radius: Exact) -> tuple[Fraction, ...]:
    """Proved radii of the token balls entering each layer, and of the one leaving the last."""
    stack = _layer_norms(weights, radius)
    return (*(layer.radius for layer in stack), _radius_after(stack[-1]))


def composed_bound(
    weights: TransformerWeights,
    *,
    radius: Exact,
    method: str,
    tokens: int | None = None,
    queries: int | None = None,
    order: Exact = 2,
) -> LipschitzBound:
    """Bound the Lipschitz constant of a transformer on tokens of norm at most r.

    Args:
        weights: The transformer.
        radius: r, exact and above 0.
        method: One of the table above.
        tokens: n, columns of the input, prompt included; the Frobenius methods need it.
        queries: m, columns read at the end; all if None. Only "frobenius" uses it.
        order: q of W_q, for "meanfield".

    Returns:
        The bound, with the radii it was found at.

    Raises:
        UserError: A parameter is out of range or missing, or the method has no proof for a
            masked transformer.
    """
    _require_method(method)
    columns = _columns(weights, method, tokens, queries, order)
    return _composed(_layer_norms(weights, radius), method, columns)


def tightest_bound(
    weights: TransformerWeights,
    *,
    radius: Exact,
    norm: Norm,
    tokens: int | None = None,
    queries: int | None = None,
    prompt_only: bool = False,
    order: Exact = 2,
) -> LipschitzBound:
    """The least of the bounds in one norm.

    Args:
        weights: The transformer.
        radius: r, exact and above 0.
        norm: "token", "frobenius" or "W_q".
        tokens: n, for the Frobenius norm.
        queries: m, columns read at the end.
        prompt_only: Whether only the prompt varies and query outputs are read: admits
            "token-prompt".
        order: q of W_q; the published mean-field constant holds for every q.

    Returns:
        The winner.

    Raises:
        UserError: A parameter is out of range or missing, or the norm is unknown.
    """
    if norm not in get_args(Norm):
        raise UserError("the norm", f"be one of {get_args(Norm)}", got=norm, remedy="choose one")
    methods = [
        method
        for method, its_norm in NORM_OF_METHOD.items()
        if its_norm == norm and (prompt_only or method != "token-prompt")
    ]
    columns = [_columns(weights, method, tokens, queries, order) for method in methods]
    stack = _layer_norms(weights, radius)
    found = [_composed(stack, *case) for case in zip(methods, columns, strict=True)]
    best = found[0]
    for other in found[1:]:
        best = other if other.bound.log < best.bound.log else best
    return best


def as_the_paper_uses_it(
    weights: TransformerWeights,
    *,
    radius: Exact,
    method: Literal["published-frobenius", "published-meanfield"],
    tokens: int | None = None,
) -> LipschitzBound:
    """The published constants multiplied with one radius at every layer: NOT a proved bound."""
    _require_method(method)
    columns = _columns(weights, method, tokens, None, 2)
    fixed = Fraction(require_radius(radius))
    stack = [
        LayerNorms(heads=layer.heads, mlp=layer.mlp, radius=fixed)
        for layer in _layer_norms(weights, radius)
    ]
    return _composed(stack, method, columns, (SAME_RADIUS,))


def _require_method(method: str) -> None:
    if method not in NORM_OF_METHOD:
        names = ", ".join(NORM_OF_METHOD)
        raise UserError("the method", f"be one of {names}", got=method, remedy="choose one")


def _columns(
    weights: TransformerWeights,
    method: str,
    tokens: int | None,
    queries: int | None,
    order: Exact,
) -> _Columns:
    """Check the sizes a method needs."""
    norm = NORM_OF_METHOD[method]
    if norm == "frobenius":
        require_positive_int("tokens", tokens, remedy="give the columns of prompt and query")
    if queries is not None:
        require_positive_int("queries", queries)
        if tokens is not None and queries > tokens:
            raise UserError("queries", f"be at most {tokens}", got=queries, remedy="give fewer")
    if norm == "W_q":
        require_order(order)
        if weights.masked:
            raise UserError(
                f"the method {method}",
                "meet a transformer without a mask",
                got="a masked one",
                remedy="use a token or Frobenius method: running means expand W_q",
            )
    return _Columns(tokens=tokens, queries=queries, order=order, masked=weights.masked)


def _layer_norms(weights: TransformerWeights, radius: Exact) -> list[LayerNorms]:
    """Norms of every layer, the radii propagated."""
    stack: list[LayerNorms] = []
    entering = Fraction(require_radius(radius))
    for layer in weights.layers:
        stack.append(_norms_of(layer, entering))
        entering = _radius_after(stack[-1])
    return stack


def _norms_of(layer: LayerWeights, radius: Fraction) -> LayerNorms:
    return LayerNorms(heads=head_norms(layer.heads), mlp=feed_forward_norms(layer), radius=radius)


def _radius_after(layer: LayerNorms) -> Fraction:
    with working_precision(PRECISION_BITS):
        middle = ball(layer.radius) + output_limit(layer.heads, layer.radius)
        return upper(layer.mlp.output_limit(ball(upper(middle))))


def _composed(
    stack: Sequence[LayerNorms],
    method: str,
    columns: _Columns,
    extra: tuple[Assumption, ...] = (),
) -> LipschitzBound:
    norm = NORM_OF_METHOD[method]
    source = _source(method)
    assumptions = (*ASSUMPTIONS, *extra)
    if method == "token-prompt":
        assumptions = (*assumptions, PROMPT_ONLY)
        limits = _prompt_sensitivities(stack, columns.masked)
        quantity = "change of query tokens per change of the prompt after layer {}"
    else:
        limits = [
            _layer_limit(layer, method, columns, last=place == len(stack) - 1)
            for place, layer in enumerate(stack)
        ]
        quantity = f"Lipschitz constant of layer {{}} ({norm} norm)"
    layers = tuple(
        upper_log_bound(
            limit, quantity=quantity.format(place), source=source, assumptions=assumptions
        )
        for place, limit in enumerate(limits, 1)
    )
    whole = f"Lipschitz constant of the transformer ({norm} norm)"
    return LipschitzBound(
        bound=layers[-1]
        if method == "token-prompt"
        else product(layers, quantity=whole, source=source),
        norm=norm,
        method=method,
        radii=tuple(layer.radius for layer in stack),
        layers=layers,
        assumptions=assumptions,
    )


def _layer_limit(layer: LayerNorms, method: str, columns: _Columns, *, last: bool) -> arb:
    """Upper limit on the constant of one layer, residual and MLP included."""
    heads, radius = layer.heads, layer.radius
    with working_precision(PRECISION_BITS):
        if method == "published-frobenius":
            return _published(layer, castin2024_limit(heads, radius, columns.tokens or 1))
        if method == "published-meanfield":
            return _published(layer, geshkovski2023_limit(heads, radius))
        if method == "meanfield":
            attention = meanfield_limit(heads, radius, columns.order)
        else:
            attention = covariance_limit(heads, radius) + mixing_limit(heads, radius) * (
                arb(_rows(columns, last=last)).sqrt() if method == "frobenius" else arb(1)
            )
        return ball(layer.mlp.lipschitz) * (1 + attention)


def _published(layer: LayerNorms, attention: arb) -> arb:
    return ball(layer.mlp.published) * (1 + attention)


def _rows(columns: _Columns, *, last: bool) -> int:
    everything = columns.tokens or 1
    return columns.queries if last and columns.queries is not None else everything


def _prompt_sensitivities(stack: Sequence[LayerNorms], masked: bool) -> list[arb]:
    """q_1 .. q_L of the recursion in the module's docstring."""
    prompt, query = arb(1), arb(0)
    found = []
    for layer in stack:
        with working_precision(PRECISION_BITS):
            own = 1 + covariance_limit(layer.heads, layer.radius)
            mixing = mixing_limit(layer.heads, layer.radius)
            outer = ball(layer.mlp.lipschitz)
            seen = max(query, prompt)
            read = prompt if masked else seen
            prompt, query = (
                (outer * (own * prompt + mixing * read)).upper(),
                (outer * (own * query + mixing * seen)).upper(),
            )
        found.append(query)
    return found


def _source(method: str) -> Source:
    if method.startswith("published"):
        key, number = {
            "published-frobenius": ("castin2024", "2.11 and 2.15"),
            "published-meanfield": ("geshkovski2023", "2.12"),
        }[method]
        return Source(
            reference=key, statement=f"Propositions {number} of meyer2025", form="as published"
        )
    statement = {
        "token": "Theorems A and C, composed",
        "token-prompt": "Theorems C and D, composed",
        "frobenius": "Theorem B, composed",
        "meanfield": "Mean-field form of Theorem C, composed",
    }[method]
    return Source(reference="promptlimits", statement=statement, form="proved here")
