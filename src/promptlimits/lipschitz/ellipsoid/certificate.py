"""The ellipsoid bound on a transformer's Lipschitz constant: searched, then certified once.

`search_choices` finds good free numbers in floats; `certify_choices` computes the ellipsoids at
these numbers, each step proved (see `ellipsoid`), and is all the bound rests on. The certificate
holds the free numbers and the hash of the weights: who has the weights can compute the chain anew
(`checker.ellipsoid` does, in ball arithmetic).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from promptlimits.base.bound import Assumption, Exact, LogBound, Source
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.exact import Rule, decimal_rounding
from promptlimits.bounds.core import Positive, Size, Theorem
from promptlimits.lipschitz.balls.matrix import DOUBLE_ARITHMETIC, float_up
from promptlimits.lipschitz.balls.spectral import spectral_norm
from promptlimits.lipschitz.ellipsoid.layer import Ellipsoids, LayerChoice, pass_layer, start
from promptlimits.lipschitz.ellipsoid.search import STEPS, Effort, search_choices
from promptlimits.lipschitz.paper.compose import LipschitzBound
from promptlimits.nets.paper.weights import Array, TransformerWeights

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
_SPECK: Final = Fraction(1, 2**1020)  # a normal number


def _double(value: object) -> float:
    """A double, from the hexadecimal text of a certificate too."""
    number = float.fromhex(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise Rule("be a finite number")
    return number


Double = Annotated[float, PlainValidator(_double), PlainSerializer(float.hex, when_used="json")]
Doubles: TypeAlias = tuple[Double, ...]


class FreeStep(BaseModel):
    """Free numbers of one ellipsoid in one layer."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)
    own: Double
    heads: Doubles
    turns: Doubles
    reaches: Doubles


class FreeLayer(BaseModel):
    """gamma_h of each head, and the free numbers of each ellipsoid."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)
    lengths: Doubles
    tokens: FreeStep
    change: FreeStep
    query: FreeStep | None


class TransformerLipschitz(Theorem):
    """The claim; that its limit holds, `certify_choices` proves from the weights."""

    kind = "transformer_lipschitz"
    source = "promptlimits: ellipsoid propagation (proved here)"
    assumptions = (TOKENS_IN_BALL.text, REAL_ARITHMETIC.text, DOUBLE_ARITHMETIC.text)
    weights_sha256: str
    dim: Size
    masked: bool
    prompt_only: bool
    radius: Positive
    shape: tuple[Doubles, ...] | None
    layers: tuple[FreeLayer, ...]
    limit: float | None = Field(default=None, exclude=True)

    def value(self) -> dict[str, Any]:
        """The limit as [m, e], m 2^e with m of 53 bits."""
        if self.limit is None:
            raise ValueError("the limit is proved from the weights, not from the free numbers")
        mantissa, exponent = math.frexp(self.limit)
        return {"limit": [int(mantissa * 2**53), exponent - 53]}

    def claim(self, value: dict[str, Any]) -> str:
        """The limit rounded up, the radius down."""
        mantissa, exponent = value["limit"]
        moves = "the prompt moves the other tokens" if self.prompt_only else "tokens move tokens"
        measure = "" if self.shape is None else ", moves measured in the recorded ellipsoid"
        radius = _rounded(self.radius, 12, up=False)
        limit = _rounded(mantissa * Fraction(2) ** exponent, 6, up=True)
        return (
            f"with every token in the ball of radius {radius}, {moves} by at most {limit} times "
            f"the largest move of a token, after {len(self.layers)} layers of width "
            f"{self.dim}{measure} (weights {self.weights_sha256[:12]})"
        )


def _rounded(value: Fraction, digits: int, *, up: bool) -> Decimal:
    context = decimal_rounding(digits, up=up)
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


@dataclass(frozen=True, kw_only=True)
class EllipsoidBound(LipschitzBound):
    """A proved upper limit on a Lipschitz constant in the token norm max_j |x_j|.

    `layers` holds the limits for the first layer, the first two and so on, the last being `bound`.

    Attributes:
        prompt_only: Whether it is about moves of the prompt, read at the query tokens.
        certificate: What a checker needs, besides the weights.
    """

    prompt_only: bool
    certificate: TransformerLipschitz


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
    layers = tuple(
        FreeLayer.model_validate({"lengths": step.lengths, **vars(choice)})
        for choice, step in zip(choices, passed[1:], strict=True)
    )
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
        certificate=TransformerLipschitz(
            weights_sha256=weights.sha256(),
            dim=weights.dim,
            masked=weights.masked,
            prompt_only=prompt_only,
            radius=Fraction(radius),
            shape=None if shape is None else shape.tolist(),
            layers=layers,
            limit=float_up(limit or _SPECK),
        ),
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
        limit or _SPECK,
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


def _require_radius(radius: Exact) -> None:
    if isinstance(radius, bool) or not isinstance(radius, int | Fraction) or radius <= 0:
        raise UserError(
            "radius", "be an exact number above 0", got=radius, remedy="give an int or a Fraction"
        )
