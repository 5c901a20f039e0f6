"""Verify a counting certificate with integers alone.

This shares no code with what wrote the certificate: no ball arithmetic, no search, no float.
It reads the inputs, and checks with Python's integers that

1. the bits: the recorded limit on log(number of prompts) is at least d m log N;
2. the ceiling K: N^(d m) C(n, k) q > p M^k at k = K, and not at k = K + 1, with
   n = max(pool, k) and share = p/q. That no larger k comes back is a lemma, proved in
   `promptlimits.theory.token_capacity`; it is not recomputed.

That the inputs describe the model and the task at hand (N, d, m, M) is for the reader to see.

Up to `_EXACT_BITS` bits the two sides are multiplied out. Beyond, their logarithms are
enclosed by fixed-point integers (`log_enclosure`), and multiplied out only if these touch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from promptlimits.errors import RunFailed, UserError

_EXACT_BITS: Final = 2**22  # multiplied out in under a second
_LOG_BITS: Final = 320  # fixed-point bits beyond those that a certificate records


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """The inputs of a certificate: see the module's docstring for the letters."""

    values: int
    numbers: int
    answers: int
    pool: int
    share: Fraction
    pairs: int | None
    log_prompts: Fraction


def check_counting(certificate: Any) -> None:
    """Verify a counting certificate.

    Args:
        certificate: Its parsed JSON.

    Raises:
        UserError: It is no counting certificate, or a field is missing or out of range.
        RunFailed: What it claims is not so.
    """
    claim = _read(certificate)
    bits = _LOG_BITS + claim.log_prompts.denominator.bit_length()
    _, log_values = log_enclosure(claim.values, bits)
    if claim.log_prompts < Fraction(claim.numbers * log_values, 2**bits):
        raise _refuted("the recorded number of prompts is below values ** numbers")
    if claim.pairs is None:
        if claim.answers != 1:
            raise _refuted("it claims that there is no ceiling, with more than one answer")
        return
    if claim.answers == 1:
        raise _refuted("it claims a ceiling, with a single answer to give")
    if not _exceeds_share(claim, claim.pairs):
        raise _refuted(f"{claim.pairs} pairs are excluded already: the ceiling is lower")
    if _exceeds_share(claim, claim.pairs + 1):
        raise _refuted(f"{claim.pairs + 1} pairs are not excluded: the ceiling is higher")


def log_enclosure(number: int, bits: int) -> tuple[int, int]:
    """Integers low <= 2**bits * log(number) <= high.

    With e = bit_length - 1 and x = number / 2^e in [1, 2): log(number) = e log 2 + log x, and
    log x = 2 atanh((x - 1)/(x + 1)), log 2 = 2 atanh(1/3). Only the leading bits of a long
    number are used, rounded down for `low` and up for `high`.

    Args:
        number: An integer of at least 1.
        bits: Fixed-point bits.

    Returns:
        The two ends.
    """
    if number == 1:
        return 0, 0
    shift = max(0, number.bit_length() - 2 * bits)
    low, high = number >> shift, -(-number >> shift)
    return _log_low(low, shift, bits), _log_low(high, shift, bits) + _slack(
        high.bit_length() + shift, bits
    )


def _log_low(mantissa: int, shift: int, bits: int) -> int:
    """At most 2**bits * log(mantissa * 2**shift), and less than that by at most `_slack`."""
    exponent = mantissa.bit_length() - 1
    power = 1 << exponent
    return 2 * (
        (exponent + shift) * _atanh_low(1, 3, bits)
        + _atanh_low(mantissa - power, mantissa + power, bits)
    )


def _slack(exponents: int, bits: int) -> int:
    """More than what `_log_low` can lose: each of its atanh loses less than 3 (bits + 2)."""
    return 6 * (bits + 2) * (exponents + 1)


def _atanh_low(numerator: int, denominator: int, bits: int) -> int:
    """Floor-rounded 2**bits * atanh(z), z = numerator/denominator in [0, 1/3].

    The series z + z^3/3 + z^5/5 + ... with every power and term rounded down. A power is low
    by e_i < 9/8 (e_0 < 1, e_(i+1) <= e_i/9 + 1), a term by less than 9/8 + 1 < 3, and after
    bits/3 + 1 terms the rest of the series is below 2^-bits, as 9^(bits/3) > 2^bits.
    So the loss is less than 3 (bits/3 + 2) + 1 < 3 (bits + 2).
    """
    power = (numerator << bits) // denominator
    total = 0
    for index in range(bits // 3 + 2):
        total += power // (2 * index + 1)
        power = power * numerator * numerator // (denominator * denominator)
    return total


def _exceeds_share(claim: _Claim, pairs: int) -> bool:
    """Whether N^(d m) C(n, k) q > p M^k for k = `pairs`."""
    choices = math.comb(max(claim.pool, pairs), pairs)
    more = ((claim.values, claim.numbers), (choices, 1), (claim.share.denominator, 1))
    less = ((claim.answers, pairs), (claim.share.numerator, 1))
    size = sum(base.bit_length() * power for base, power in (*more, *less))
    if size > _EXACT_BITS:
        more_low, more_high = _log_of_product(more)
        less_low, less_high = _log_of_product(less)
        if more_low > less_high:
            return True
        if more_high < less_low:
            return False
    return _multiplied_out(more) > _multiplied_out(less)


def _log_of_product(factors: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    ends = [(log_enclosure(base, _LOG_BITS), power) for base, power in factors]
    return sum(low * n for (low, _), n in ends), sum(high * n for (_, high), n in ends)


def _multiplied_out(factors: tuple[tuple[int, int], ...]) -> int:
    return math.prod(base**power for base, power in factors)


def _read(certificate: Any) -> _Claim:
    """The claim of a certificate, each field in its range."""
    try:
        if certificate["schema"] != 1 or certificate["kind"] != "counting":
            raise ValueError("not a counting certificate of schema 1")
        inputs, bound = certificate["inputs"], certificate["bound"]
        if bound["direction"] != "upper":
            raise ValueError("the number of prompts needs an upper limit")
        mantissa, exponent = int(bound["log"]["mantissa"]), int(bound["log"]["exponent"])
        if abs(exponent) > 2**13:
            raise ValueError("the logarithm's exponent is out of range")
        claim = _Claim(
            values=_whole(inputs["values_per_number"], 2),
            numbers=_whole(inputs["dim"], 1) * _whole(inputs["prompt_tokens"], 0),
            answers=_whole(inputs["answer_set_size"], 1),
            pool=_whole(inputs["pool"], 0),
            share=Fraction(
                _whole(inputs["share_numerator"], 1), _whole(inputs["share_denominator"], 1)
            ),
            pairs=None if inputs["pairs"] is None else _whole(inputs["pairs"], 0),
            log_prompts=mantissa * Fraction(2) ** exponent,
        )
        if claim.share >= 1:
            raise ValueError("the share must be below 1")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "the certificate",
            "be a counting certificate as promptlimits writes it",
            got=f"{type(error).__name__}: {error}",
            remedy="use the file as it was written",
        ) from error
    return claim


def _whole(value: Any, least: int) -> int:
    """A JSON integer, or its text, of at least `least`."""
    if isinstance(value, bool | float):
        raise TypeError(f"{value!r} is no whole number")
    number = int(value, 0) if isinstance(value, str) else int(value)
    if number < least:
        raise ValueError(f"{number} is below {least}")
    return number


def _refuted(reason: str) -> RunFailed:
    return RunFailed(
        f"the certificate does not hold: {reason}",
        remedy="do not rely on it; compute the ceiling again",
    )
