"""Verify a margin certificate: the theorem of `promptlimits.theory.margin_capacity`.

It checks that the recorded logarithm is n log(1 + Lm rho/g) (or 0, if Lm rho < g), rounded up to
a multiple of 2^-96; that (1 + Lm rho/g)^n M^(-k) > share for the recorded number k of pairs, and
not for k + 1; and that words, source and assumptions are those of the theorem and its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Any, Final

from promptlimits.checking.grid import (
    is_negative,
    lipschitz_log,
    lipschitz_words,
    log_sum,
    require_grid_log,
    require_words,
)
from promptlimits.checking.intervals import Interval, log_of
from promptlimits.checking.prompt_capacity import shown
from promptlimits.checking.record import (
    exact_fraction,
    fraction_text,
    long_integer,
    number_text,
    open_certificate,
    reading,
    refuted,
    require_same,
    text,
    whole,
)

_SOURCE: Final = (
    "promptlimits",
    "margin theorem (promptlimits.theory.margin_capacity)",
    "proved here",
)
_ASSUMPTIONS: Final = (
    "The answers are independent and each is uniform over the given set of answers.",
    "The model, the keys and the decoding rule are fixed beforehand, not chosen to suit them.",
    "The prompt lies in the ball, and nothing else about the answers reaches the model.",
    (
        "On that ball every difference of two logits, at each token of an answer read with the "
        "ones before it, is Lipschitz in the prompt with the stated constant and norm."
    ),
    "Every token of a right answer has the stated margin; no answer continues another one.",
)
_INPUTS: Final = {
    "dim",
    "prompt_tokens",
    "prompt_radius",
    "norm",
    "lipschitz",
    "margin",
    "answer_set_size",
    "share",
    "pairs",
}
_EXACT_BITS: Final = 2**22  # multiplied out in under a second


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """The inputs: see the theorem for the letters."""

    dim: int
    prompt_tokens: int
    prompt_radius: Fraction
    norm: str
    lipschitz: Any
    margin: Fraction
    answers: int
    share: Fraction
    pairs: int | None

    @property
    def numbers(self) -> int:
        """n."""
        return self.dim * self.prompt_tokens

    @property
    def spread(self) -> int:
        """Square of what turns Lm into a constant for the norm of the ball."""
        return self.prompt_tokens if self.norm == "frobenius" else 1

    def log_ratio(self, digits: int) -> Interval:
        """log(Lm rho/g)."""
        _, log = lipschitz_log(self.lipschitz)
        ratio = log(digits) + log_of(self.prompt_radius / self.margin, digits)
        return ratio + log_of(self.spread, digits) / 2

    @property
    def ratio_squared(self) -> Fraction | None:
        """(Lm rho/g)^2, if Lm is exact."""
        constant, _ = lipschitz_log(self.lipschitz)
        if constant is None:
            return None
        return (constant * self.prompt_radius / self.margin) ** 2 * self.spread


def check(certificate: Any) -> str:
    """Verify a margin certificate.

    Args:
        certificate: Its parsed JSON.

    Returns:
        The claim in one sentence, made of the numbers that were verified.

    Raises:
        UserError: It is no such certificate, or a field is missing or out of range.
        RunFailed: It was altered, or what it claims is not so.
    """
    with reading("margin"):
        inputs, bound = open_certificate(certificate, kind="margin", inputs=_INPUTS)
        claim = _read(inputs)
    require_same(len(bound.factors), 0, "the number of factors")
    words = (
        f"answer lists held by prompts of {claim.prompt_tokens} tokens of {claim.dim} numbers "
        f"with the margin, beside a share {fraction_text(claim.share)} of the lists of answers, "
        f"each one of {number_text(claim.answers)}; rho = {fraction_text(claim.prompt_radius)}, "
        f"g = {fraction_text(claim.margin)}, {lipschitz_words(claim.lipschitz)}"
    )
    require_words(bound, quantity=words, source=_SOURCE, assumptions=_ASSUMPTIONS)
    single = _is_single(claim)
    lists = _log_lists(claim, single=single)
    require_grid_log(bound.log, lists, words)
    _check_pairs(claim, lists, single=single)
    return _in_words(claim)


def _read(inputs: dict[str, Any]) -> _Claim:
    pairs = inputs["pairs"]
    claim = _Claim(
        dim=whole(inputs["dim"], 1),
        prompt_tokens=whole(inputs["prompt_tokens"], 1),
        prompt_radius=exact_fraction(inputs["prompt_radius"], above=0),
        norm=text(inputs["norm"]),
        lipschitz=inputs["lipschitz"],
        margin=exact_fraction(inputs["margin"], above=0),
        answers=long_integer(inputs["answer_set_size"], 1),
        share=exact_fraction(inputs["share"], above=0),
        pairs=None if pairs is None else whole(pairs, 0),
    )
    if claim.norm not in ("token", "frobenius", "matrix") or claim.share >= 1:
        raise ValueError("the norm is unknown, or the share is not below 1")
    lipschitz_log(claim.lipschitz)
    return claim


def _is_single(claim: _Claim) -> bool:
    """Whether Lm rho < g: then there is one list."""
    squared = claim.ratio_squared
    if squared is not None:
        return squared < 1
    return is_negative(claim.log_ratio, "whether Lm rho < g")


def _log_lists(claim: _Claim, *, single: bool) -> Callable[[int], Interval]:
    """Enclosures of the logarithm of the number of lists."""
    if single:
        return lambda digits: Interval.of(0, digits)
    return lambda digits: log_sum(Interval.of(0, digits), claim.log_ratio(digits)) * claim.numbers


def _check_pairs(claim: _Claim, lists: Callable[[int], Interval], *, single: bool) -> None:
    if claim.pairs is None or claim.answers == 1:
        if claim.pairs is not None or claim.answers != 1:
            raise refuted("there is a ceiling exactly if there is more than one answer to give")
        return
    if not _exceeds_share(claim, lists, claim.pairs, single=single):
        raise refuted(f"{claim.pairs} pairs are excluded already: the ceiling is lower")
    if _exceeds_share(claim, lists, claim.pairs + 1, single=single):
        raise refuted(f"{claim.pairs + 1} pairs are not excluded: the ceiling is higher")


def _exceeds_share(
    claim: _Claim, lists: Callable[[int], Interval], pairs: int, *, single: bool
) -> bool:
    """Whether lists M^(-pairs) > share; multiplied out where that is possible."""
    squared = claim.ratio_squared
    base = Fraction(1) if single else None if squared is None else _one_plus_root(squared)
    if base is not None:
        size = base.numerator.bit_length() * claim.numbers + claim.answers.bit_length() * pairs
        if size < _EXACT_BITS:
            return bool(base**claim.numbers > claim.share * claim.answers**pairs)
    return is_negative(
        lambda digits: (
            log_of(claim.answers, digits) * pairs + log_of(claim.share, digits) - lists(digits)
        ),
        f"whether {pairs} pairs are excluded",
    )


def _one_plus_root(squared: Fraction) -> Fraction | None:
    """1 + the root of a square; None if the root is irrational."""
    root = Fraction(isqrt(squared.numerator), isqrt(squared.denominator))
    return 1 + root if root**2 == squared else None


def _in_words(claim: _Claim) -> str:
    prompt = (
        f"any prompt of {claim.prompt_tokens:,} tokens of {claim.dim:,} numbers in a ball of "
        f"radius {shown(claim.prompt_radius)} ({claim.norm} norm)"
    )
    if claim.pairs is None:
        return f"there is no ceiling for {prompt}: there is a single answer to give"
    answers = (
        f"{claim.answers:,}"
        if claim.answers.bit_length() <= 50
        else f"at least 2^{claim.answers.bit_length() - 1}"
    )
    return (
        f"of all lists of more than {claim.pairs:,} answers, each drawn at random from {answers}, "
        f"at most a share of {shown(claim.share)} is answered in full with a logit margin of "
        f"{shown(claim.margin)} by {prompt}; under the assumptions that it states"
    )
