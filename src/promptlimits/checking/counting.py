"""Verify a counting certificate with integers alone.

This shares no code with what wrote the certificate: no ball arithmetic, no search, no float.
It checks that

1. the digest is the SHA-256 of the rest, so that any altered digit fails, even in words;
2. the format: N is the number of finite values of the format it names, counted here anew;
3. the bits: the recorded limit on log(number of prompts), and that of its factor log N, is no
   less than d m log N and log N, and more by at most a part in 2^112;
4. the ceiling K: H N^(d m) C(n, k) q > p M^k at k = K, and not at k = K + 1, with
   n = max(pool, k), H environments and share = p/q. That no larger k comes back is a lemma,
   proved in `promptlimits.theory.token_capacity`; it is not recomputed;
5. every list: M^E <= H N^(d m) < M^(E + 1);
6. the words: each sentence and assumption is the one that belongs to these numbers, there is
   nothing else, and each number is written in its one form.

**What a forger can do.** The digest is no signature. Who computes it anew after an edit meets
2 to 6, which leave only edits that keep every claim true and its limits exact:

- the last 13 or so digits of a limit's mantissa, to a limit that is still within 2^-112;
- a pool or a share for which the very same K is the exact ceiling: a true claim about that pool
  or share (a pool of at most K is not used at all);
- `answer_set` where it is not in this package's words (there, its numbers must give M), and the
  name of a format that is not in the table (its count is stated, and checked);
- the number of environments, in each of its places, where the same K and E are the exact limits;
- whether the answers are known to be random (`holds` of the first assumption).

That the inputs describe the model and the task at hand (d, m, M, pool) is for the reader to
see: the checker returns the claim in words, made of the numbers that it verified.

Up to `_EXACT_BITS` bits the two sides are multiplied out. Beyond, their logarithms are
enclosed by fixed-point integers (`log_enclosure`), and multiplied out only if these touch, up to
`_MOST_BITS` bits: no certificate, however large its numbers, keeps the checker busy for long.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

from promptlimits.checking.record import (
    RecordedBound,
    long_integer,
    number_text,
    open_certificate,
    reading,
    refuted,
    text,
    whole,
)

_Factors: TypeAlias = tuple[tuple[int, int], ...]  # (base, power) each

_EXACT_BITS: Final = 2**22  # multiplied out in under a second
_MOST_BITS: Final = 2**26  # multiplied out in seconds
_FEW_CHOICES: Final = 10**6  # bits of a binomial coefficient, multiplied out in 0.1 seconds
_MOST_CHOICES: Final = 5 * 10**6  # the same in seconds
_LOG_BITS: Final = 320  # fixed-point bits beyond those that a certificate records
_TIGHT_BITS: Final = 112  # a recorded limit is above the truth by at most a part in 2^112

# All bit patterns less those of infinities and NaNs: an all-ones exponent, for either sign.
_FINITE_VALUES: Final = {
    "float64": 2**64 - 2**53,
    "float32": 2**32 - 2**24,
    "bfloat16": 2**16 - 2**8,
    "float16": 2**16 - 2**11,
    "float8_e5m2": 2**8 - 2**3,
    "float8_e4m3fn": 2**8 - 2,  # only all ones is a NaN
}

_SOURCE: Final = (
    "promptlimits",
    "counting theorem (promptlimits.theory.token_capacity)",
    "proved here",
)

_ASSUMPTIONS: Final = (
    "The answers are independent and each is uniform over the given set of answers.",
    (
        "The model, the keys and the decoding rule are fixed beforehand, "
        "not chosen to suit the answers."
    ),
    (
        "The answers are a function of the prompt and of one of at most {environments} "
        "(hardware, kernels, batches, library versions) fixed before the list is drawn: no "
        "sampling."
    ),
    (
        "The number of prompt tokens is fixed beforehand, "
        "and each number in the prompt is finite and kept in the stated format."
    ),
    "Nothing else about the answers reaches the model: no other weights, no text, no examples.",
)

_INPUT_FIELDS: Final = {
    "values_per_number",
    "number_format",
    "dim",
    "prompt_tokens",
    "environments_log2",
    "answer_set_size",
    "answer_set",
    "pool",
    "share_numerator",
    "share_denominator",
    "pairs",
    "every_list_pairs",
}


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """The inputs of a certificate: see the module's docstring for the letters."""

    values: int
    format: str
    dim: int
    tokens: int
    environments_log2: int
    answers: int
    answer_set: str
    pool: int
    share: Fraction
    pairs: int | None
    every_list: int | None

    @property
    def numbers(self) -> int:
        """Numbers in a prompt, d m."""
        return self.dim * self.tokens

    @property
    def environments(self) -> str:
        """H in words."""
        return environments_in_words(self.environments_log2)

    @property
    def lists(self) -> _Factors:
        """Lists of answers that prompts can give: as many as prompts times environments."""
        return ((self.values, self.numbers), (2, self.environments_log2))


def check_counting(certificate: Any) -> str:
    """Verify a counting certificate.

    Args:
        certificate: Its parsed JSON.

    Returns:
        The claim in one sentence, made of the numbers that were verified.

    Raises:
        UserError: It is no counting certificate, or a field is missing or out of range.
        RunFailed: It was altered, or what it claims is not so.
    """
    with reading("counting"):
        inputs, bound = open_certificate(certificate, kind="counting", inputs=_INPUT_FIELDS)
        claim = _read(inputs)
        factor = _factor(bound)
        _check_words(claim, bound, factor)
    _check_format(claim)
    _check_log(factor.log, claim.values, 1, "values of one number")
    _check_log(bound.log, claim.values, claim.numbers, "prompts")
    if bound.log < claim.numbers * factor.log:
        raise refuted("the limit on prompts is below the power of its factor")
    _check_pairs(claim)
    return _in_words(claim)


def environments_in_words(log2: int) -> str:
    """How many environments there are."""
    return f"2^{log2} decoding environments" if log2 else "1 decoding environment"


def _check_format(claim: _Claim) -> None:
    """The name of the format fixes the count of values."""
    if not format_is_right(claim.format, claim.values):
        raise refuted("a number of that format takes another number of values")


def format_is_right(name: str, values: int) -> bool:
    """Whether a format of that name takes that many values.

    A name that is not in the table must state the count, and must not hold a name that is: who
    reads "float32: 2 values" reads "float32".
    """
    stored, _, computed = name.removesuffix(" computed with").partition(" stored, ")
    if stored in _FINITE_VALUES and computed in {"", *_FINITE_VALUES}:
        count = _FINITE_VALUES[stored]
        if computed:  # what overflows becomes one of two infinities
            count = min(count, _FINITE_VALUES[computed] + 2)
        whole_name = f"{stored} stored, {computed} computed with" if computed else stored
        return values == count and name == whole_name and stored != computed
    said = f": {number_text(values)} values"
    plain = re.sub(r"[^a-z0-9]", "", name.removesuffix(said).lower())
    return name.endswith(said) and not any(
        known.replace("_", "") in plain for known in _FINITE_VALUES
    )


def _check_words(claim: _Claim, bound: RecordedBound, factor: RecordedBound) -> None:
    """Sentences and assumptions are those that belong to the numbers."""
    if (
        bound.quantity != (f"different prompts of {claim.tokens} tokens of {claim.dim} numbers")
        or factor.quantity != f"values of one number ({claim.format})"
    ):
        raise refuted("its words and its numbers differ")
    # Only whether the answers are random is known beforehand, if that.
    holds = (bound.holds[0], *(None for _ in _ASSUMPTIONS[1:]))
    assumptions = tuple(text.format(environments=claim.environments) for text in _ASSUMPTIONS)
    for part in (bound, factor):
        source = (part.reference, part.statement, part.form)
        if source != _SOURCE or (part.assumptions, part.holds) != (assumptions, holds):
            raise refuted("its assumptions or its source are not those of the theorem")
    if not _answer_set_agrees(claim.answer_set, claim.answers):
        raise refuted("the set of answers is described with another size")


def _answer_set_agrees(words: str, answers: int) -> bool:
    """Whether a set of answers described in this package's words has that many."""
    plain = words.replace(",", "")
    if match := re.fullmatch(
        r"(?:the|a set of) (\d+) (?:distinct values of the list|answers)", plain
    ):
        return int(match[1]) == answers
    if match := re.fullmatch(r"a set of at least 2\^(\d+) answers", plain):
        return int(match[1]) == answers.bit_length() - 1
    if match := re.fullmatch(r"all sequences of (\d+) tokens? out of (\d+) plain tokens", plain):
        length, tokens = int(match[1]), int(match[2])
        return length <= answers.bit_length() and tokens**length == answers
    return plain != "a set of a single answer" or answers == 1


def _check_log(log: Fraction, base: int, power: int, what: str) -> None:
    """The recorded logarithm is no less than power * log(base), and hardly more."""
    bits = _LOG_BITS + log.denominator.bit_length()
    low, high = (Fraction(power * end, 2**bits) for end in log_enclosure(base, bits))
    if log < high:
        raise refuted(f"the recorded number of {what} is too low")
    if log > low * (1 + Fraction(1, 2**_TIGHT_BITS)):
        raise refuted(f"the recorded number of {what} is too high")


def _check_pairs(claim: _Claim) -> None:
    """Both sides of both limits on the pairs."""
    if claim.pairs is None or claim.every_list is None:
        if claim.answers != 1 or claim.pairs is not claim.every_list:
            raise refuted("it claims that there is no ceiling, with more than one answer")
        return
    if claim.answers == 1:
        raise refuted("it claims a ceiling, with a single answer to give")
    if not _exceeds_share(claim, claim.pairs):
        raise refuted(f"{claim.pairs} pairs are excluded already: the ceiling is lower")
    if _exceeds_share(claim, claim.pairs + 1):
        raise refuted(f"{claim.pairs + 1} pairs are not excluded: the ceiling is higher")
    if _is_more(((claim.answers, claim.every_list),), claim.lists):
        raise refuted(f"not every list of {claim.every_list} answers can be held")
    if not _is_more(((claim.answers, claim.every_list + 1),), claim.lists):
        raise refuted(f"lists of {claim.every_list + 1} answers are not excluded")


def log_enclosure(number: int, bits: int) -> tuple[int, int]:
    """Integers low <= 2**bits * log(number) <= high.

    With e = bit_length - 1 and x = number / 2^e in [1, 2): log(number) = e log 2 + log x, and
    log x = 2 atanh((x - 1)/(x + 1)), log 2 = 2 atanh(1/3). Only the leading bits of a long
    number are used, rounded down for `low` and up for `high`.
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
    """Whether H N^(d m) C(n, k) q > p M^k for k = `pairs`."""
    keys = max(claim.pool, pairs)
    more: _Factors = (*claim.lists, (claim.share.denominator, 1))
    less: _Factors = ((claim.answers, pairs), (claim.share.numerator, 1))
    size = min(pairs, keys - pairs) * keys.bit_length()
    if size > _FEW_CHOICES:
        found = _compared(more, less, log_choices(keys, pairs))
        if found is not None:
            return found
        if size > _MOST_CHOICES:
            raise refuted(f"whether {pairs} pairs are excluded cannot be decided")
    return _is_more((*more, (math.comb(keys, pairs), 1)), less)


def log_choices(keys: int, pairs: int) -> tuple[int, int]:
    """Integers low <= 2**_LOG_BITS * log C(keys, pairs) <= high, for 0 < pairs < keys.

    By Robbins' limits sqrt(2 pi n) (n/e)^n e^(1/(12 n + 1)) < n! < sqrt(2 pi n) (n/e)^n e^(1/12n):
    a coefficient of a million factors takes Python half a minute to multiply out.
    """
    (all_low, all_high), (one_low, one_high), (other_low, other_high) = (
        _log_factorial(number) for number in (keys, pairs, keys - pairs)
    )
    return all_low - one_high - other_high, all_high - one_low - other_low


def _log_factorial(number: int) -> tuple[int, int]:
    one = 1 << _LOG_BITS
    low, high = log_enclosure(number, _LOG_BITS)
    # log sqrt(2 pi) = 0.91893853320467274178032973640561763986...
    root_low = (91893853320467274178032973640561763986 << _LOG_BITS) // 10**38
    root_high = (91893853320467274178032973640561763987 << _LOG_BITS) // 10**38 + 1
    return (
        number * low - number * one + low // 2 + root_low + one // (12 * number + 1),
        number * high - number * one + high // 2 + 1 + root_high + one // (12 * number) + 1,
    )


def _is_more(more: _Factors, less: _Factors) -> bool:
    """Whether one product of powers is greater than another."""
    size = sum(base.bit_length() * power for base, power in (*more, *less))
    if size > _EXACT_BITS:
        found = _compared(more, less, (0, 0))
        if found is not None:
            return found
        if _are_equal(more, less):
            return False
        if size > _MOST_BITS:
            raise refuted("which of two products of powers is greater cannot be decided")
    return _multiplied_out(more) > _multiplied_out(less)


def _compared(more: _Factors, less: _Factors, extra: tuple[int, int]) -> bool | None:
    """Whether `more` times something is greater than `less`; None if their limits touch."""
    more_low, more_high = _log_of_product(more)
    less_low, less_high = _log_of_product(less)
    if more_low + extra[0] > less_high:
        return True
    return False if more_high + extra[1] < less_low else None


def _are_equal(more: _Factors, less: _Factors) -> bool:
    """Whether two products of powers are equal, without multiplying them out.

    With g = gcd(a, b) > 1, a^e b^f = (a/g)^e (b/g)^f g^(e + f), until all bases are coprime; then
    the product is 1 only if every power is 0.
    """
    left = [(base, power) for base, power in more if base > 1 and power]
    left += [(base, -power) for base, power in less if base > 1 and power]
    coprime: list[tuple[int, int]] = []
    while left:
        base, power = left.pop()
        for place, (other, other_power) in enumerate(coprime):
            common = math.gcd(base, other)
            if common > 1:
                del coprime[place]
                parts = (
                    (base // common, power),
                    (other // common, other_power),
                    (common, power + other_power),
                )
                left += [(part, times) for part, times in parts if part > 1 and times]
                break
        else:
            coprime.append((base, power))
    return not coprime


def _log_of_product(factors: _Factors) -> tuple[int, int]:
    ends = [(log_enclosure(base, _LOG_BITS), power) for base, power in factors]
    return sum(low * n for (low, _), n in ends), sum(high * n for (_, high), n in ends)


def _multiplied_out(factors: _Factors) -> int:
    return math.prod(base**power for base, power in factors)


def _read(inputs: Any) -> _Claim:
    """The claim of a certificate, each field in its range and in its one form."""
    over, under = (
        long_integer(inputs["share_numerator"], 1),
        long_integer(inputs["share_denominator"], 2),
    )
    if over >= under or math.gcd(over, under) != 1:
        raise ValueError("the share must be below 1 and in lowest terms")
    return _Claim(
        values=long_integer(inputs["values_per_number"], 2),
        format=text(inputs["number_format"]),
        dim=whole(inputs["dim"], 1),
        tokens=whole(inputs["prompt_tokens"], 0),
        environments_log2=whole(inputs["environments_log2"], 0),
        answers=long_integer(inputs["answer_set_size"], 1),
        answer_set=text(inputs["answer_set"]),
        pool=whole(inputs["pool"], 0),
        share=Fraction(over, under),
        pairs=None if inputs["pairs"] is None else whole(inputs["pairs"], 0),
        every_list=(
            None if inputs["every_list_pairs"] is None else whole(inputs["every_list_pairs"], 0)
        ),
    )


def _factor(bound: RecordedBound) -> RecordedBound:
    """The one factor of the number of prompts."""
    if len(bound.factors) != 1:
        raise ValueError("the number of prompts has one factor")
    (factor,) = bound.factors
    if factor.factors or {bound.direction, factor.direction} != {"upper"}:
        raise ValueError("the number of prompts needs an upper limit, made from another one")
    return factor


def _in_words(claim: _Claim) -> str:
    tokens = f"{claim.tokens:,} token{'' if claim.tokens == 1 else 's'}"
    prompt = f"any prompt of {tokens} of {claim.dim:,} numbers ({claim.format})"
    drawn = f"each drawn at random from {_count(claim.answers)} answers ({claim.answer_set})"
    if claim.pairs is None:
        return f"there is no ceiling for {prompt}: there is a single answer to give"
    part = f"at most {_count(claim.share.numerator)} in {_count(claim.share.denominator)}"
    right = (
        f"of all lists of {claim.pool:,} answers, {drawn}, {part} have more than "
        f"{claim.pairs:,} answered right"
        if claim.pool > claim.pairs
        else f"of all lists of more than {claim.pairs:,} answers, {drawn}, {part} are answered "
        "in full"
    )
    return (
        f"{right} by {prompt} in any of {claim.environments}; lists of more than "
        f"{claim.every_list:,} include some that none answers in full; under the assumptions that "
        "it states"
    )


def _count(number: int) -> str:
    return f"{number:,}" if number.bit_length() <= 50 else f"at least 2^{number.bit_length() - 1}"
