"""Lipschitz constants of the papers' transformer: layers composed, each with its own radius.

Radii are propagated from layer to layer (`feedforward`). `same_radius` keeps the first one instead,
as [@meyer2025] does: the number is then marked as resting on an assumption that is not proved.

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
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, get_args

from flint import arb

from promptlimits.base.bound import PRECISION_BITS, Assumption, Exact, LogBound, product
from promptlimits.base.errors import UserError
from promptlimits.base.exact import working_precision
from promptlimits.lipschitz.balls.rounding import ball, upper_log_bound
from promptlimits.lipschitz.paper.attention import (
    THEOREMS,
    Inputs,
    Norm,
    covariance_limit,
    mixing_limit,
    theorem,
    unmasked_only,
)
from promptlimits.lipschitz.paper.feedforward import LayerNorms, layer_norms, token_radii
from promptlimits.nets.paper.weights import TransformerWeights

METHODS: Final = tuple(name for name, each in THEOREMS.items() if each.composes)
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


def composed_bound(
    weights: TransformerWeights,
    *,
    radius: Exact,
    method: str,
    tokens: int | None = None,
    queries: int | None = None,
    order: Exact = 2,
    same_radius: bool = False,
) -> LipschitzBound:
    """Bound the Lipschitz constant of a transformer on tokens of norm at most r.

    Args:
        weights: The transformer.
        radius: r, exact and above 0.
        method: One of the table above.
        tokens: n, columns of the input, prompt included; the Frobenius methods need it.
        queries: m, columns read at the end; all if None. Only "frobenius" uses it.
        order: q of W_q, for "meanfield".
        same_radius: Keep r at every layer, as the paper does: NOT a proved bound.

    Returns:
        The bound, with the radii it was found at.

    Raises:
        UserError: A parameter is out of range or missing, or the method has no proof for a
            masked transformer.
    """
    inputs = _inputs(weights, radius, tokens, queries, order)
    _require(method, inputs)
    return _composed(layer_norms(weights), method, inputs, same_radius)


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
    inputs = _inputs(weights, radius, tokens, queries, order)
    methods = [
        method
        for method in METHODS
        if THEOREMS[method].norm == norm and (prompt_only or method != "token-prompt")
    ]
    for method in methods:
        _require(method, inputs)
    norms = layer_norms(weights)
    return min(
        (_composed(norms, method, inputs, False) for method in methods),
        key=lambda found: found.bound.log,
    )


def _inputs(
    weights: TransformerWeights,
    radius: Exact,
    tokens: int | None,
    queries: int | None,
    order: Exact,
) -> Inputs:
    return Inputs(radius=radius, tokens=tokens, queries=queries, order=order, masked=weights.masked)


def _require(method: str, inputs: Inputs) -> None:
    known = theorem(method, METHODS)
    known.require(inputs)
    if inputs.masked and known.norm == "W_q":
        raise unmasked_only(method)


def _composed(
    norms: Sequence[LayerNorms], method: str, inputs: Inputs, same_radius: bool
) -> LipschitzBound:
    known = THEOREMS[method]
    assumptions = known.assumptions
    radii = token_radii(norms[:-1], inputs.radius)
    if same_radius:
        radii = (radii[0],) * len(norms)
        assumptions = (*assumptions, SAME_RADIUS)
    source = replace(known.source, statement=f"{known.statement}, composed")
    if method == "token-prompt":
        assumptions = (*assumptions, PROMPT_ONLY)
        limits = _prompt_sensitivities(norms, radii, inputs.masked)
        quantity = "change of query tokens per change of the prompt after layer {}"
    else:
        limits = [
            _layer_limit(layer, method, replace(inputs, radius=radius, queries=None))
            for layer, radius in zip(norms[:-1], radii, strict=False)
        ]
        limits.append(_layer_limit(norms[-1], method, replace(inputs, radius=radii[-1])))
        quantity = f"Lipschitz constant of layer {{}} ({known.norm} norm)"
    layers = tuple(
        upper_log_bound(
            limit, quantity=quantity.format(place), source=source, assumptions=assumptions
        )
        for place, limit in enumerate(limits, 1)
    )
    whole = f"Lipschitz constant of the transformer ({known.norm} norm)"
    return LipschitzBound(
        bound=layers[-1]
        if method == "token-prompt"
        else product(layers, quantity=whole, source=source),
        norm=known.norm,
        method=method,
        radii=radii,
        layers=layers,
        assumptions=assumptions,
    )


def _layer_limit(layer: LayerNorms, method: str, inputs: Inputs) -> arb:
    """Upper limit on the constant of one layer, residual and MLP included."""
    known = THEOREMS[method]
    with working_precision(PRECISION_BITS):
        outer = ball(layer.mlp.published if known.published else layer.mlp.lipschitz)
        return outer * (1 + known.limit(layer.heads, inputs))


def _prompt_sensitivities(
    norms: Sequence[LayerNorms], radii: Sequence[Fraction], masked: bool
) -> list[arb]:
    """q_1 .. q_L of the recursion in the module's docstring."""
    prompt, query = arb(1), arb(0)
    found = []
    for layer, radius in zip(norms, radii, strict=True):
        with working_precision(PRECISION_BITS):
            own = 1 + covariance_limit(layer.heads, radius)
            mixing = mixing_limit(layer.heads, radius)
            outer = ball(layer.mlp.lipschitz)
            seen = max(query, prompt)
            read = prompt if masked else seen
            prompt, query = (
                (outer * (own * prompt + mixing * read)).upper(),
                (outer * (own * query + mixing * seen)).upper(),
            )
        found.append(query)
    return found
