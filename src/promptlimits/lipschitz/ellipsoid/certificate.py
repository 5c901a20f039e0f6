"""The ellipsoid bound on a transformer's Lipschitz constant: searched, then certified once.

`search_choices` finds good free numbers in floats; `certify_choices` computes the ellipsoids at
these numbers, each step proved (see `ellipsoid`), and is all the bound rests on. The certificate
holds the free numbers and the hash of the weights: who has the weights can compute the chain anew
(`checker.ellipsoid` does, in ball arithmetic).

**The Lipschitz constant that counts for covering: cells need not be balls** (Theorem F). Let E be
an invertible matrix and Lambda such that moves X - X' of the prompt move every token read by at
most Lambda max_j |E^(-1) (X_j - X'_j)| (an ellipsoid bound started from E E^T). Cut the prompt's
tokens into cells P_j + (eps/Lambda) E B, B the unit ball: two prompts, one of them the centre of
the other's cell, have outputs within eps in token norm. The ball of radius r in R^d has such a net,
with centres inside, of N points with

    log N  <=  d (log(2 r + a) + log L_eff - log eps),
    L_eff = Lambda / |det E|^(1/d),   a = eps ||E|| / Lambda,

and prompts of m tokens one of N^m points.

**Proof.** The domain is convex, so local limits integrate along segments. Let K = (eps/Lambda) E B.
Take points of the ball with differences outside K, as many as fit: they are a net. The sets
P_j + K/2 have disjoint interiors and lie in the ball of radius r + a/2, as ||k|| <= a/2 on K/2.
Comparing volumes, N <= (r + a/2)^d / ((1/2)^d (eps/Lambda)^d |det E|).

Source: promptlimits, after the volume argument of Lemma C_in. Tightness: E = I is the usual count
with L_eff = Lambda; other E trade directions. Cost: one ellipsoid search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Final, TypeAlias

import numpy as np
from flint import arb
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from promptlimits.base.bound import PRECISION_BITS, Assumption, Exact, LogBound, Source, log_ball
from promptlimits.base.errors import RunFailed, UserError, require_positive_int
from promptlimits.base.exact import Rule, decimal_rounding, working_precision
from promptlimits.bounds.core import Positive, Size, Theorem
from promptlimits.lipschitz.balls.matrix import DOUBLE_ARITHMETIC, float_up
from promptlimits.lipschitz.balls.rounding import ball, require_radius
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


_SOURCE = Source(
    reference="promptlimits",
    statement="cells in the shape of an ellipsoid (promptlimits.lipschitz.ellipsoid.certificate)",
    form="proved here",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class EffectiveLipschitz:
    """What replaces L where prompts are covered by cells."""

    bound: LogBound  # L_eff
    shape: Array  # E, lower triangular
    # The ellipsoid bound Lambda for moves measured by E, with its certificate.
    moves: EllipsoidBound
    radius: Fraction  # r of the tokens' ball

    def cover(self, *, eps: Exact, prompt_tokens: int) -> LogBound:
        """How many prompts stand for all, each to within eps in token norm of the output."""
        if isinstance(eps, bool) or not isinstance(eps, int | Fraction) or eps <= 0:
            raise UserError("eps", "be an exact number above 0", got=eps, remedy="give a Fraction")
        require_positive_int("prompt_tokens", prompt_tokens)
        dim = self.shape.shape[0]
        longest = spectral_norm(self.shape)
        with working_precision(PRECISION_BITS):
            # `moves.bound` is one valid Lambda: both its uses take that very number.
            axis = ball(eps) * log_ball(longest).exp() / self.moves.bound.log.exp()
            reach = (2 * ball(self.radius) + axis).log()
            each = dim * (reach + self.bound.log - log_ball(eps))
            total = prompt_tokens * each
        # One point covers what a cell as large as the ball covers: a count is at least 1.
        return LogBound(
            direction="upper",
            log=total if total > 0 else arb(0),
            quantity=f"cells that cover all prompts of {prompt_tokens} tokens of {dim} numbers",
            source=_SOURCE,
            assumptions=self.bound.assumptions,
        )


def effective_lipschitz(
    weights: TransformerWeights,
    *,
    radius: Exact,
    prompt_only: bool = True,
    effort: Effort = "full",
    shape: Array | None = None,
) -> EffectiveLipschitz:
    """Search for the cell shape E that needs the fewest cells, and prove its L_eff."""
    require_radius(radius)
    if shape is not None:
        _require_triangular(shape, weights.dim)
    found = search_choices(
        weights,
        radius=near_float(radius),
        prompt_only=prompt_only,
        effort=effort,
        shape="search" if shape is None else shape,
    )
    moves = certify_choices(
        weights, radius=radius, prompt_only=prompt_only, choices=found.choices, shape=found.shape
    )
    cell = found.shape
    with working_precision(PRECISION_BITS):
        log_volume = sum((log_ball(Fraction(float(entry))) for entry in np.diag(cell)), arb(0))
        log = moves.bound.log - log_volume / weights.dim
    bound = LogBound(
        direction="upper",
        log=log,
        quantity="effective Lipschitz constant of covering by ellipsoids, token norm",
        source=_SOURCE,
        assumptions=moves.bound.assumptions,
    )
    return EffectiveLipschitz(bound=bound, shape=cell, moves=moves, radius=Fraction(radius))


def _require_triangular(shape: Array, dim: int) -> None:
    """The determinant of a triangular matrix is exact."""
    given = np.asarray(shape)
    right = given.shape == (dim, dim) and given.dtype == np.float64
    if not right or np.triu(given, 1).any() or not (np.diag(given) > 0).all():
        raise UserError(
            "shape",
            "be a lower triangular float64 matrix with a diagonal above 0",
            got=f"an array of shape {given.shape}",
            remedy="take the Cholesky factor of E E^T",
        )
    if not all(map(math.isfinite, given.ravel())):
        raise UserError("shape", "be finite", got="NaN or infinity", remedy="rescale it")
