"""Verify a prompt capacity certificate: Theorem 1 of `promptlimits.theory.prompt_capacity`.

From the recorded inputs alone, in decimal intervals, it checks that

1. delta is the greatest dyadic number of 32 bits with kappa delta^2 + (kappa - 1) a delta <=
   a eps, which makes it the best one (any delta would be sound; this one leaves no digit free);
2. the logarithms n log(1 + a/delta) and N log((eps + delta)/r), or N log((eps + L rho)/r)
   where delta is null, are the recorded ones, each rounded up to a multiple of 2^-96;
3. the bound is their sum;
4. words, source and assumptions are those of the theorem and of these inputs.

That L is a Lipschitz constant of the model is an assumption, which it cannot check.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from promptlimits.checking.grid import (
    decades,
    is_negative,
    lipschitz_log,
    lipschitz_words,
    log_sum,
    require_grid_log,
    require_words,
)
from promptlimits.checking.intervals import Interval, log_of
from promptlimits.checking.record import (
    RecordedBound,
    exact_fraction,
    fraction_text,
    open_certificate,
    reading,
    refuted,
    require_same,
    text,
    whole,
)

_SOURCE: Final = (
    "promptlimits",
    "Theorem 1 (promptlimits.theory.prompt_capacity), in place of meyer2025 Theorem 4.7",
    "corrected",
)
_ASSUMPTIONS: Final = (
    "The model and the inputs are fixed beforehand, not chosen to suit the targets.",
    (
        "For each input, the map from the prompt to the outputs that are read, or one that "
        "agrees with it on the prompts that count, is L-Lipschitz on the ball of prompts, in "
        "the stated norm."
    ),
    "The prompts that count lie in that ball; nothing else about the targets reaches the model.",
    "The share is one of volume: targets uniform in the product of balls of the given radius.",
)
_INPUTS: Final = {
    "dim",
    "prompt_tokens",
    "tokens",
    "pairs",
    "norm",
    "lipschitz",
    "radius",
    "prompt_radius",
    "eps",
    "delta",
    "least_deviation",
}
_DELTA_BITS: Final = 32


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """The inputs: see the theorem for the letters."""

    dim: int
    prompt_tokens: int
    tokens: int
    pairs: int
    norm: str
    lipschitz: Any
    radius: Fraction
    prompt_radius: Fraction
    eps: Fraction
    delta: Fraction | None
    least_deviation: Fraction

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the theorem rests on here."""
        if self.least_deviation == 0:
            return _ASSUMPTIONS
        return (*_ASSUMPTIONS, trust_region(self.least_deviation))

    @property
    def prompt_numbers(self) -> int:
        """n."""
        return self.dim * self.prompt_tokens

    @property
    def target_numbers(self) -> int:
        """N."""
        return self.dim * self.tokens * self.pairs

    def log_reach(self, digits: int) -> Interval:
        """log a."""
        _, log = lipschitz_log(self.lipschitz)
        size = log(digits) + log_of(2 * self.prompt_radius, digits)
        return size + log_of(self.prompt_tokens, digits) / 2 if self._spread > 1 else size

    @property
    def reach_squared(self) -> Fraction | None:
        """a^2, if L is exact."""
        constant, _ = lipschitz_log(self.lipschitz)
        if constant is None:
            return None
        return (2 * constant * self.prompt_radius) ** 2 * self._spread

    @property
    def _spread(self) -> int:
        return self.prompt_tokens if self.norm == "frobenius" else 1


def check(certificate: Any) -> str:
    """Verify a prompt capacity certificate."""
    with reading("prompt_capacity"):
        inputs, bound = open_certificate(certificate, kind="prompt_capacity", inputs=_INPUTS)
        claim = _read(inputs)
    require_words(
        bound,
        quantity=(
            f"share of the lists of {claim.pairs} targets of {claim.tokens} tokens of {claim.dim} "
            f"numbers that some prompt of {claim.prompt_tokens} tokens reaches; r = "
            f"{fraction_text(claim.radius)}, rho = {fraction_text(claim.prompt_radius)}, eps = "
            f"{fraction_text(claim.eps)}, {lipschitz_words(claim.lipschitz)}"
        ),
        source=_SOURCE,
        assumptions=claim.assumptions,
    )
    if claim.delta is None:
        _check_centre(claim, bound)
    else:
        _check_delta(claim, claim.delta)
        _check_net(claim, bound, claim.delta)
    require_same(bound.log, sum((factor.log for factor in bound.factors), Fraction(0)), "the sum")
    return _in_words(claim, bound.log)


def _read(inputs: dict[str, Any]) -> _Claim:
    claim = _Claim(
        dim=whole(inputs["dim"], 1),
        prompt_tokens=whole(inputs["prompt_tokens"], 1),
        tokens=whole(inputs["tokens"], 1),
        pairs=whole(inputs["pairs"], 1),
        norm=text(inputs["norm"]),
        lipschitz=inputs["lipschitz"],
        radius=exact_fraction(inputs["radius"], above=0),
        prompt_radius=exact_fraction(inputs["prompt_radius"], above=0),
        eps=exact_fraction(inputs["eps"], above=0),
        delta=None if inputs["delta"] is None else exact_fraction(inputs["delta"], above=0),
        least_deviation=exact_fraction(inputs["least_deviation"], least=0),
    )
    if claim.norm not in ("token", "frobenius", "matrix") or claim.eps >= claim.radius:
        raise ValueError("the norm is unknown, or eps is not below the radius")
    lipschitz_log(claim.lipschitz)
    return claim


def _check_centre(claim: _Claim, bound: RecordedBound) -> None:
    """One factor: a ball of radius eps + a/2 around each output of the prompt 0."""
    (factor,) = _factors(bound, 1)
    words = "volume of targets within eps + L rho of one output, over that of all"
    require_words(factor, quantity=words, source=_SOURCE, assumptions=claim.assumptions)
    half = claim.log_reach

    def truth(digits: int) -> Interval:
        reached = log_sum(log_of(claim.eps, digits), half(digits) - log_of(2, digits))
        return (reached - log_of(claim.radius, digits)) * claim.target_numbers

    require_grid_log(factor.log, truth, words)


def _check_net(claim: _Claim, bound: RecordedBound, delta: Fraction) -> None:
    net, balls = _factors(bound, 2)
    words = "prompts of a net of width delta/L"
    require_words(net, quantity=words, source=_SOURCE, assumptions=claim.assumptions)
    require_grid_log(
        net.log,
        lambda digits: (
            log_sum(Interval.of(0, digits), _log_ratio(claim, delta, digits)) * claim.prompt_numbers
        ),
        words,
    )
    words = "volume of targets within eps + delta of one output, over that of all"
    require_words(balls, quantity=words, source=_SOURCE, assumptions=claim.assumptions)
    share = (claim.eps + delta) / claim.radius
    require_grid_log(balls.log, lambda digits: log_of(share, digits) * claim.target_numbers, words)


def _log_ratio(claim: _Claim, delta: Fraction, digits: int) -> Interval:
    """log(a/delta)."""
    return claim.log_reach(digits) - log_of(delta, digits)


def _factors(bound: RecordedBound, count: int) -> tuple[RecordedBound, ...]:
    require_same(len(bound.factors), count, "the number of factors")
    for factor in bound.factors:
        require_same(len(factor.factors), 0, "the number of factors of a factor")
    return bound.factors


def _check_delta(claim: _Claim, delta: Fraction) -> None:
    """It is the last number of 32 bits at which the bound has not begun to rise."""
    size, under = delta.numerator, delta.denominator
    mantissa = size // (size & -size)
    if under & (under - 1) or mantissa.bit_length() > _DELTA_BITS:
        raise refuted("delta has more than 32 bits")
    # One unit in the last of the 32 places: delta lies between 2^(b - 1) and 2^b.
    step = Fraction(2) ** (size.bit_length() - under.bit_length() + 1 - _DELTA_BITS)
    if not _falls_until(claim, delta) or _falls_until(claim, delta + step):
        raise refuted("delta is not the best one that 32 bits can write")


def _falls_until(claim: _Claim, delta: Fraction) -> bool:
    """Whether kappa delta^2 <= a (eps - (kappa - 1) delta)."""
    kappa = Fraction(claim.target_numbers, claim.prompt_numbers)
    rest = claim.eps - (kappa - 1) * delta
    if rest <= 0:
        return False
    squared = claim.reach_squared
    if squared is not None:
        return kappa**2 * delta**4 <= squared * rest**2
    left = kappa * delta**2 / rest
    return is_negative(
        lambda digits: log_of(left, digits) - claim.log_reach(digits), "the place of delta"
    )


def _in_words(claim: _Claim, log: Fraction) -> str:
    return (
        f"of all lists of {claim.pairs:,} targets of {claim.tokens:,} tokens of {claim.dim:,} "
        f"numbers in balls of radius {shown(claim.radius)}, at most a share of "
        f"{decades(log)} is reached within {shown(claim.eps)} by prompts of "
        f"{claim.prompt_tokens:,} tokens in a ball of radius {shown(claim.prompt_radius)} "
        f"({claim.norm} norm){_region(claim)}; under the assumptions that it states"
    )


def _region(claim: _Claim) -> str:
    if claim.least_deviation == 0:
        return ""
    least = shown(claim.least_deviation)
    return f" that keep every deviation in front of a norm at {least} or more on every input"


def trust_region(deviation: Fraction) -> str:
    """The assumption of a certificate that counts the prompts of a region alone."""
    return (
        "Only prompts count for which every vector that a norm of the model divides has "
        "deviation (root mean square, for RMSNorm) at least "
        f"{fraction_text(deviation)} on every input."
    )


def shown(number: Fraction) -> str:
    """An exact number as a claim in words shows it."""
    # Not by the length of its text: Python refuses to write out a very long one.
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > 128:
        return "a long fraction"
    return str(number)
