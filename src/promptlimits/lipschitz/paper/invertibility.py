"""When a transformer is one-to-one, and when it still is behind a fixed prompt.

Every block is x -> x + G(x): G is attention, or the MLP's branch W_2 relu(W_1 x + b_1) + b_2.
On a convex set where G has the Lipschitz constant L < 1, |x + G x - x' - G x'| >= (1-L)|x - x'|.

**Theorem 4 (after [@wang2023]; proof [@behrmann2019]).** If on the token balls that enter them
all blocks have constants a_l (attention) and b_l (branch) below 1, then [P, X] -> [P', Y] is
one-to-one, with floor prod_l (1 - a_l)(1 - b_l). Here a_l and b_l are those proved by
`attention` and `feedforward`, at radii propagated from layer to layer; none is the paper's.

**What it does not say.** Y is only a part of the output: what X loses may leave through P'. At
depth 2 or more X -> Y, P fixed, need not be one-to-one (`promptlimits errata W4`).

**Theorem I (proved here): the same prompt, two inputs.** Let kappa_l and M_l be the covariance
and mixing limits of layer l (a_l = kappa_l + M_l), Lambda_l the constant of its MLP with
residual. Write q_l, p_l for the distance of the X-columns and of the prompt's columns after
layer l, and j(rho) = max(1, rho) in the token norm, (1 + rho^2)^(1/2) in the Frobenius norm.
With rho_0 = 0 and, for as long as D_l = 1 - kappa_l - M_l j(rho_{l-1}) > 0,

    rho_l = Lambda_l ( (1 + kappa_l) rho_{l-1} + M_l j(rho_{l-1}) ) / ( D_l (1 - b_l) ),
    (a masked transformer: rho_l = 0, as prompt tokens never see X),

    ||Y - Y'|| >= floor ||X - X'||,   floor = prod_l D_l (1 - b_l).

*Proof.* By induction p_l <= rho_l q_l. A row's covariance term sees its own change and its mixing
term all changes, of norm at most j(rho) q. So attention leaves X at least q (1 - kappa - M j)
and P at most p (1 + kappa) + q M j, the branch takes q b at most, and P grows by Lambda. []

Hence at depth 1, and at any depth under a mask, constants below 1 do suffice: floor =
prod (1 - a_l)(1 - b_l). In general floor >= 1 - Lambda with

    Lambda = prod_l (1 + a_l)(1 + b_l) - 1,

since tau - identity is Lambda-Lipschitz; that simpler condition, Lambda < 1, is reported too.

**Two inputs, one answer.** Errors e, e' at X, X' with one target satisfy
e + e' >= ||Y - Y'||, so the larger is at least floor ||X - X'|| / 2: all m output columns are
meant. A target for the last token alone is not limited by this.

*Tightness.* Depth 1 without MLP, A = 0, V = -v I and one token: floor = 1 - v, attained.
*Cost:* that of `head_norms` and `feed_forward_norms`; another radius costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias, get_args

from flint import arb

from promptlimits.base.bound import PRECISION_BITS, Assumption, Exact, Source
from promptlimits.base.errors import UserError, require_positive_int
from promptlimits.base.exact import working_precision
from promptlimits.lipschitz.balls.rounding import ball, require_radius, upper
from promptlimits.lipschitz.paper.attention import ASSUMPTIONS, covariance_limit, mixing_limit
from promptlimits.lipschitz.paper.feedforward import LayerNorms, layer_norms, token_radii
from promptlimits.nets.paper.weights import TransformerWeights

InputNorm: TypeAlias = Literal["token", "frobenius"]
SOURCE: Final = Source(reference="promptlimits", statement="Theorem I", form="proved here")
_GRID_BITS: Final = 256
_ONE: Final = Fraction(1)


@dataclass(frozen=True, kw_only=True)
class BlockConstants:
    """Proved upper limits for the two blocks of one layer."""

    radius: Fraction  # of the token ball entering the layer
    covariance: Fraction  # kappa_l
    mixing: Fraction  # M_l; times the root of the number of tokens in the Frobenius norm
    branch: Fraction  # b_l, the constant of the MLP without its residual
    feed_forward: Fraction  # Lambda_l, that of the MLP with its residual

    @property
    def attention(self) -> Fraction:
        """a_l, the constant of attention without its residual."""
        return self.covariance + self.mixing


@dataclass(frozen=True, kw_only=True)
class Floors:
    """What the blocks' constants prove at one radius."""

    blocks: tuple[BlockConstants, ...]  # the constants of each layer
    deviation: Fraction  # lambda, rounded up
    floor: Fraction  # ||Y - Y'|| >= floor ||X - X'|| for every prompt; 0 if nothing is proved
    whole_floor: Fraction  # the same for [P, X] -> [P', Y]: Theorem 4; 0 if nothing is proved
    reason: str  # why nothing is proved for X -> Y, or ""

    @property
    def one_to_one(self) -> bool:
        """Whether X -> Y is proved one-to-one for each prompt of the ball."""
        return self.floor > 0

    def least_error(self, distance: Exact) -> Fraction:
        """The larger error at two inputs with one common target is at least this.

        Args:
            distance: A lower limit on the distance of the two inputs, exact.

        Returns:
            floor * distance / 2; it holds behind every prompt of the ball.
        """
        return self.floor * Fraction(distance) / 2


@dataclass(frozen=True, kw_only=True)
class Invertibility(Floors):
    """Whether X -> Y is proved one-to-one behind every fixed prompt.

    Attributes:
        weights_sha256: Of the transformer that is meant.
        masked: Whether it is causal.
        norm: "token" (largest length of a token) or "frobenius".
        tokens: Columns of [P, X]; only the Frobenius norm depends on them.
        radius: Of the token ball of prompts and inputs.
        assumptions: What all this rests on.
    """

    weights_sha256: str
    masked: bool
    norm: InputNorm
    tokens: int | None
    radius: Fraction
    assumptions: tuple[Assumption, ...] = ASSUMPTIONS


def certify_invertible(
    weights: TransformerWeights,
    *,
    radius: Exact,
    norm: InputNorm = "token",
    tokens: int | None = None,
    norms: Sequence[LayerNorms] | None = None,
) -> Invertibility:
    """Prove, if it can be proved, that X -> Y is one-to-one behind every prompt (Theorem I).

    Args:
        weights: The transformer.
        radius: r of the token ball of prompts and inputs, exact and above 0.
        norm: In which the floor is meant.
        tokens: Columns of [P, X]; for the Frobenius norm.
        norms: `layer_norms(weights)`, where they are at hand.

    Returns:
        The constants and what they prove; a constant of 1 or more is reported, not raised.

    Raises:
        UserError: The radius, the norm or the number of tokens is out of range.
    """
    require_radius(radius)
    require_norm(norm, tokens)
    found = certify_with(
        layer_norms(weights) if norms is None else norms,
        masked=weights.masked,
        radius=radius,
        norm=norm,
        tokens=tokens,
    )
    return Invertibility(
        **vars(found),
        weights_sha256=weights.sha256(),
        masked=weights.masked,
        norm=norm,
        tokens=tokens,
        radius=Fraction(radius),
    )


def certify_with(
    norms: Sequence[LayerNorms],
    *,
    masked: bool,
    radius: Exact,
    norm: InputNorm,
    tokens: int | None,
) -> Floors:
    """The floors at a radius, from norms that are already proved."""
    blocks = _constants(norms, Fraction(radius), tokens if norm == "frobenius" else None)
    deviation, whole = _ONE, _ONE
    for block in blocks:
        deviation *= (1 + block.attention) * (1 + block.branch)
        whole *= max(1 - block.attention, Fraction(0)) * max(1 - block.branch, Fraction(0))
    floor, stopped = _fixed_prompt_floor(blocks, norm=norm, masked=masked)
    floor = _down(max(floor, 2 - deviation))
    return Floors(
        blocks=blocks,
        deviation=deviation - 1,
        floor=floor,
        whole_floor=_down(whole),
        reason="" if floor > 0 else _reason(blocks, stopped or len(blocks)),
    )


def require_norm(norm: str, tokens: int | None) -> None:
    """Check the norm and the number of tokens that it needs."""
    if norm not in get_args(InputNorm):
        raise UserError("the norm", "be token or frobenius", got=norm, remedy="choose token")
    if norm == "frobenius" or tokens is not None:
        require_positive_int("tokens", tokens, remedy="give the columns of prompt and input")


def _constants(
    norms: Sequence[LayerNorms], radius: Fraction, rows: int | None
) -> tuple[BlockConstants, ...]:
    found = []
    for layer, entering in zip(norms, token_radii(norms[:-1], radius), strict=True):
        with working_precision(PRECISION_BITS):
            mixing = mixing_limit(layer.heads, entering) * arb(rows or 1).sqrt()
            found.append(
                BlockConstants(
                    radius=entering,
                    covariance=upper(covariance_limit(layer.heads, entering)),
                    mixing=upper(mixing),
                    branch=layer.mlp.branch,
                    feed_forward=min(layer.mlp.lipschitz, 1 + layer.mlp.branch),
                )
            )
    return tuple(found)


def _fixed_prompt_floor(
    blocks: Sequence[BlockConstants], *, norm: InputNorm, masked: bool
) -> tuple[Fraction, int]:
    """The product of Theorem I, and the layer (from 1) where it reached 0, else 0."""
    floor, ratio = _ONE, Fraction(0)
    for place, block in enumerate(blocks, 1):
        joint = _joint(ratio, norm)
        kept = 1 - block.covariance - block.mixing * joint
        if kept <= 0 or block.branch >= 1:
            return Fraction(0), place
        if not masked:
            moved = (1 + block.covariance) * ratio + block.mixing * joint
            ratio = _up(block.feed_forward * moved / (kept * (1 - block.branch)))
        floor *= kept * (1 - block.branch)
    return floor, 0


def _joint(ratio: Fraction, norm: InputNorm) -> Fraction:
    """j(rho), rounded up."""
    if norm == "token" or ratio == 0:
        return max(_ONE, ratio)
    with working_precision(PRECISION_BITS):
        return upper((1 + ball(ratio) ** 2).sqrt())


def _reason(blocks: Sequence[BlockConstants], stopped: int) -> str:
    for place, block in enumerate(blocks, 1):
        named = (("attention", block.attention), ("MLP branch", block.branch))
        for name, constant in named:
            if constant >= 1:
                return (
                    f"the {name} of layer {place} has the constant {_shown(constant)}, which is "
                    f"not below 1, on tokens within {_shown(block.radius)}"
                )
    return (
        f"every block's constant is below 1, but with only the prompt fixed that is not enough: "
        f"from layer {stopped} on what the prompt's columns take up can cancel the rest"
    )


def _shown(value: Fraction) -> str:
    return f"{float(value):.6g}" if value < 10**300 else "over 1e300"


def _up(value: Fraction) -> Fraction:
    """At or above: short dyadic numbers keep deep stacks fast."""
    return Fraction(math.ceil(value * 2**_GRID_BITS), 2**_GRID_BITS)


def _down(value: Fraction) -> Fraction:
    return Fraction(math.floor(max(value, Fraction(0)) * 2**_GRID_BITS), 2**_GRID_BITS)
