"""The ellipsoid bound on a transformer's Lipschitz constant: searched, then certified once.

`search_choices` finds good free numbers in floats; `certify_choices` computes the ellipsoids at
these numbers, each step proved (see `ellipsoid`), and is all the bound rests on. The certificate
holds the free numbers and the hash of the weights: who has the weights can compute the chain anew
(`promptlimits.checking.transformer_lipschitz` does, in ball arithmetic).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from promptlimits.base.bound import Assumption, Certificate, Exact, LogBound, Source
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.typing import JsonObject, JsonValue
from promptlimits.lipschitz.balls.matrix import DOUBLE_ARITHMETIC
from promptlimits.lipschitz.balls.spectral import spectral_norm
from promptlimits.lipschitz.ellipsoid.layer import (
    Ellipsoids,
    LayerChoice,
    StepChoice,
    pass_layer,
    start,
)
from promptlimits.lipschitz.ellipsoid.search import STEPS, Effort, search_choices
from promptlimits.lipschitz.paper.compose import LipschitzBound
from promptlimits.nets.paper.weights import Array, TransformerWeights

KIND: Final = "transformer_lipschitz"
SOURCE: Final = Source(
    reference="promptlimits",
    statement="ellipsoid propagation (promptlimits.lipschitz.ellipsoid.layer)",
    form="proved here",
)
TOKENS_IN_BALL: Final = Assumption(
    text="Every token that enters the first layer, of the prompt and of the input, lies in the "
    "ball of the stated radius; any number of tokens.",
)
REAL_ARITHMETIC: Final = Assumption(
    text="The transformer is the exact one of these weights: no rounding, no normalisation.",
)


@dataclass(frozen=True, kw_only=True)
class EllipsoidBound(LipschitzBound):
    """A proved upper limit on a Lipschitz constant in the token norm max_j |x_j|.

    `layers` holds the limits for the first layer, the first two and so on, the last being `bound`.

    Attributes:
        prompt_only: Whether it is about moves of the prompt, read at the query tokens.
        certificate: What a checker needs, besides the weights.
    """

    prompt_only: bool
    certificate: Certificate


def ellipsoid_bound(
    weights: TransformerWeights,
    *,
    radius: Exact,
    prompt_only: bool = False,
    effort: Effort = "full",
) -> EllipsoidBound:
    """Bound the Lipschitz constant by ellipsoids, with its free numbers optimised.

    Statement: for X, X' with every token in the ball of `radius`,
    max_j |f(X)_j - f(X')_j| <= L max_j |X_j - X'_j|; with `prompt_only`, X and X' agree but on the
    prompt and j runs over the other tokens. Assumptions: no normalisation; any mask, any number of
    tokens. Formula and proof: `lipschitz.ellipsoid.layer`. Source: proved here. Tightness:
    on random layers of radius 1 some 0.3 decades above what an optimiser finds for one layer and 2
    for two. Cost: `effort` sets the gradient steps of O(layers (heads d^3 + d^2 f)) each.

    Args:
        weights: The transformer.
        radius: Of the ball, exact and above 0.
        prompt_only: Whether only the prompt moves and only other tokens are read.
        effort: "quick" or "full".

    Returns:
        The bound with its certificate.

    Raises:
        UserError: The radius or the effort is out of range.
        RunFailed: Numbers overflow double precision.
    """
    _require_radius(radius)
    if effort not in STEPS:
        raise UserError(
            "effort", f"be one of {sorted(STEPS)}", got=effort, remedy="take one of these"
        )
    found = search_choices(
        weights, radius=near_float(radius), prompt_only=prompt_only, effort=effort
    )
    return certify_choices(weights, radius=radius, prompt_only=prompt_only, choices=found.choices)


def certify_choices(
    weights: TransformerWeights,
    *,
    radius: Exact,
    prompt_only: bool,
    choices: Sequence[LayerChoice],
    shape: Array | None = None,
) -> EllipsoidBound:
    """Prove the bound at given free numbers."""
    _require_radius(radius)
    if len(choices) != len(weights.layers):
        raise UserError(
            "choices", "be one for each layer", got=len(choices), remedy="search for them"
        )
    known = start(weights.dim, Fraction(radius), prompt_only=prompt_only, shape=shape)
    passed = _passed(weights, known, choices)
    limit = spectral_norm(passed[-1].read)
    assumptions = (TOKENS_IN_BALL, REAL_ARITHMETIC, DOUBLE_ARITHMETIC)
    bound = _log_bound(limit, _quantity(weights, prompt_only, shape), assumptions)
    record = _inputs(weights, radius, prompt_only, choices, passed, limit, shape)
    return EllipsoidBound(
        bound=bound,
        norm="token",
        method="ellipsoid",
        layers=tuple(
            _log_bound(spectral_norm(step.read), f"the same after {place} layers", assumptions)
            for place, step in enumerate(passed[1:], start=1)
        ),
        radii=tuple(step.token_radius for step in passed[:-1]),
        assumptions=assumptions,
        prompt_only=prompt_only,
        certificate=Certificate(kind=KIND, bound=bound, inputs=record),
    )


def near_float(radius: Exact) -> float:
    """The float nearest to a radius, for a search."""
    try:
        return float(radius)
    except OverflowError:
        raise _overflow() from None


def _overflow() -> RunFailed:
    return RunFailed(
        "the ellipsoids overflow double precision",
        remedy="scale the weights or the radius down; a product of norms may still hold",
    )


def _passed(
    weights: TransformerWeights, known: Ellipsoids, choices: Sequence[LayerChoice]
) -> list[Ellipsoids]:
    """What is known before each layer and after the last."""
    passed = [known]
    for layer, choice in zip(weights.layers, choices, strict=True):
        passed.append(pass_layer(layer, passed[-1], choice))
    return passed


def _log_bound(limit: Fraction, quantity: str, assumptions: tuple[Assumption, ...]) -> LogBound:
    # A map that moves nothing has constant 0, whose logarithm is none: any positive number will do.
    return LogBound.of(
        limit or Fraction(1, 2**1074),
        direction="upper",
        quantity=quantity,
        source=SOURCE,
        assumptions=assumptions,
    )


def _quantity(weights: TransformerWeights, prompt_only: bool, shape: Array | None) -> str:
    who = "of the other tokens by the prompt" if prompt_only else "of all tokens by all tokens"
    cells = "" if shape is None else ", moves measured by an ellipsoid"
    depth = len(weights.layers)
    return f"token-norm Lipschitz constant of {depth} layers of width {weights.dim}, {who}{cells}"


def _inputs(
    weights: TransformerWeights,
    radius: Exact,
    prompt_only: bool,
    choices: Sequence[LayerChoice],
    passed: Sequence[Ellipsoids],
    limit: Fraction,
    shape: Array | None,
) -> JsonObject:
    return {
        "dim": weights.dim,
        "masked": weights.masked,
        "prompt_only": prompt_only,
        "radius": str(Fraction(radius)),
        "weights_sha256": weights.sha256(),
        "shape": None if shape is None else [_hex(row) for row in shape],
        "limit": str(limit or Fraction(1, 2**1074)),
        "layers": [
            {
                "lengths": _hex(step.lengths),
                "tokens": _step(choice.tokens),
                "change": _step(choice.change),
                "query": None if choice.query is None else _step(choice.query),
            }
            for choice, step in zip(choices, passed[1:], strict=True)
        ],
    }


def _step(choice: StepChoice) -> JsonObject:
    return {
        "own": float(choice.own).hex(),
        "heads": _hex(choice.heads),
        "turns": _hex(choice.turns),
        "reaches": _hex(choice.reaches),
    }


def _hex(values: Sequence[float] | Array) -> list[JsonValue]:
    """Floats as the exact numbers they are, in hexadecimal."""
    return [float(value).hex() for value in np.asarray(values, dtype=np.float64)]


def _require_radius(radius: Exact) -> None:
    if isinstance(radius, bool) or not isinstance(radius, int | Fraction) or radius <= 0:
        raise UserError(
            "radius", "be an exact number above 0", got=radius, remedy="give an int or a Fraction"
        )
