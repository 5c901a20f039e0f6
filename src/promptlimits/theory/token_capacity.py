"""How many answers a prompt can hold, whatever the model: the counting theorem.

**Statement.** A prompt has m tokens of d numbers, each of which takes one of at most N values
(`number_formats` counts them). Fix the model, n keys, H environments (hardware, kernels, how
keys are put into batches, library versions) and, for each of them, any rule that turns a prompt
into a list of n answers, one for each key. Draw the n right answers independently and uniformly
from a set of M >= 2. Then

    P(some prompt, in some environment, has k or more of n right) <= Q * C(n, k) * M^(-k),   (1)
    Q = H * N^(d m).

*Proof.* One prompt in one environment gives one list of answers, whose entries at k given keys
are the right ones with probability M^(-k). Add this up over at most N^(d m) prompts, H
environments and C(n, k) choices of k keys. []

Nothing asks that a prompt's answers agree between environments, or that one key's answer does
not depend on the others in its batch: what a machine rounds differently is another environment.
H is a power of 2, 2^64 by default, far more than there are machines, releases and batch sizes
together; each factor of 2 costs one bit. It does not matter where in the model the numbers of a
prompt go: (1) holds for prefixes with d their numbers for each token.

**Every list.** With n = k: each prompt produces at most H lists of k answers, so if M^k > Q
there are lists that no prompt produces in any environment.

**The ceiling.** Let B(k) be the right side of (1) with n = max(pool, k), `pool` being the
number of keys among which the prompt may choose those that it answers (pool = 0: it must
answer all, n = k). The ceiling is the largest k with B(k) > share, for 0 < share < 1.

*Every k above it is excluded:* B(k) <= share. *Proof.* B(0) = Q >= 1 > share. For
0 <= k < pool, B(k+1)/B(k) = (pool - k)/((k + 1) M) decreases in k, so on {0..pool} B rises,
if at all, before it falls: once at or below share < B(0) it has been falling, and goes on
falling. For k >= pool, B(k+1)/B(k) = 1/M < 1. So {k: B(k) > share} is {0, 1, .., ceiling}. []
C(n, k) M^(-k) alone does rise at first, from k = 0 as long as k + 1 <= (pool + 1)/(M + 1);
this is why the argument is needed, and why bisection on B(k) > share is right. For the same
reason the least m with B(k) > share inverts the ceiling exactly: B grows with m.

**Assumptions.** See `counting_claim.counting_assumptions`; they travel with each result.

**Tightness.** For n = k, (1) is attained: let prompts produce Q different lists. A
selection (pool > k) is counted by the union bound, which is not attained. Against trained
prompts the gap is large: nothing here looks at the weights.

**Cost.** Some 2 log2(k) comparisons, exact (`exact_products`), well under a millisecond each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import fmpz

from promptlimits.base.bound import (
    PRECISION_BITS,
    Assumption,
    Certificate,
    LogBound,
    Source,
    product,
)
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.theory.counting_claim import (
    ENVIRONMENTS_LOG2,
    SOURCE,
    answers_in_words,
    counting_assumptions,
    environments_text,
    exact_text,
    format_text,
    statement,
)
from promptlimits.theory.exact_products import product_exceeds_one
from promptlimits.theory.number_formats import NumberFormat

DEFAULT_SHARE: Final = Fraction(1, 2**20)
"""One list in 1,048,576: what a ceiling lets through unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class CountingCeiling:
    """The most pairs that the counting theorem does not exclude.

    Attributes:
        pairs: For every k above it, at most `share` of the random lists of max(pool, k)
            answers have k of them right behind any prompt. None: there is no ceiling (a
            single answer to give).
        every_list_pairs: Among the lists of any greater length there are some that no prompt
            holds; up to it, the theorem does not exclude any list. None: no such limit.
        bits: Upper limit on the number of prompts; `bits.upper_bits()` is what a prompt holds.
        environments_log2: log2 H, environments that a prompt's answers may depend on.
        answer_bits: The number of answers to choose from; `answer_bits.lower_bits()` is what
            each right answer takes.
        share: Share of answer lists let through.
        statement: The claim in words.
        assumptions: What it rests on.
        source: Which theorem.
        certificate: What `check_counting` needs to verify it with integers alone.
    """

    pairs: int | None
    every_list_pairs: int | None
    bits: LogBound
    environments_log2: int
    answer_bits: LogBound
    share: Fraction
    statement: str
    assumptions: tuple[Assumption, ...]
    source: Source
    certificate: Certificate


def prompt_count(
    *,
    number: NumberFormat,
    dim: int,
    prompt_tokens: int,
    assumptions: tuple[Assumption, ...] = (),
    precision_bits: int = PRECISION_BITS,
) -> LogBound:
    """Upper limit N^(d m) on the number of different prompts; its bits are what one can hold."""
    per_number = LogBound.of(
        number.values,
        direction="upper",
        quantity=f"values of one number ({format_text(number)})",
        source=SOURCE,
        assumptions=assumptions,
        precision_bits=precision_bits,
    )
    return per_number.power(
        _numbers(dim, prompt_tokens),
        quantity=f"different prompts of {prompt_tokens} tokens of {dim} numbers",
        precision_bits=precision_bits,
    )


def share_held(
    *,
    pairs: int,
    number: NumberFormat,
    dim: int,
    prompt_tokens: int,
    answer_set_size: int,
    pool: int | None = None,
    environments_log2: int = ENVIRONMENTS_LOG2,
) -> LogBound:
    """Upper limit (1) on the share of random answer lists of which a prompt holds `pairs`."""
    assumptions = counting_assumptions(environments_log2=_environments(environments_log2))
    prompts = prompt_count(
        number=number, dim=dim, prompt_tokens=prompt_tokens, assumptions=assumptions
    )
    require_positive_int("pairs", pairs)
    require_positive_int("answer set size", answer_set_size)
    keys = max(_pool(pool), pairs)
    selections = LogBound.of(
        _choices(keys, pairs),
        direction="upper",
        quantity=f"choices of {pairs} of {keys} keys",
        source=SOURCE,
    )
    # The chance M^(-k) is at most the inverse of a lower limit on M^k.
    chance = LogBound.of(
        answer_set_size, direction="lower", quantity="answers to choose from", source=SOURCE
    ).power(-pairs, quantity=f"chance that {pairs} random answers are the given ones")
    environments = LogBound.of(
        2**environments_log2,
        direction="upper",
        quantity=environments_text(environments_log2),
        source=SOURCE,
    )
    return product(
        (prompts, environments, selections, chance),
        quantity=f"share of random lists of {keys} answers of which some prompt has {pairs} right",
        source=SOURCE,
    )


def counting_ceiling(
    *,
    number: NumberFormat,
    dim: int,
    prompt_tokens: int,
    answer_set_size: int,
    answer_set: str | None = None,
    answers_random: bool | None = None,
    pool: int | None = None,
    share: Fraction = DEFAULT_SHARE,
    environments_log2: int = ENVIRONMENTS_LOG2,
) -> CountingCeiling:
    """The most pairs that the theorem does not exclude for prompts of one size, random answers.

    Args:
        number: What each number of the prompt can be (`number_format`).
        dim: d, numbers per prompt token.
        prompt_tokens: m; 0 is no prompt.
        answer_set_size: M, exactly.
        answer_set: The set of answers in words, for the statement.
        answers_random: Whether the task's answers were drawn independently and uniformly from
            the set, if known; it is recorded with the assumption.
        pool: Keys among which the prompt may choose those it answers; None if it must answer
            all of a list.
        share: Share of random answer lists let through, strictly between 0 and 1.
        environments_log2: log2 H, environments that a prompt's answers may depend on: 0 is one.

    Returns:
        The ceiling.

    Raises:
        UserError: A size is no whole number or too small, or the share is out of range.
        TypeError: The share is a float.
    """
    assumptions = counting_assumptions(answers_random, _environments(environments_log2))
    bits = prompt_count(
        number=number,
        dim=dim,
        prompt_tokens=prompt_tokens,
        assumptions=assumptions,
    )
    require_positive_int("answer set size", answer_set_size)
    keys, share = _pool(pool), _share(share)
    answers = answer_set or answers_in_words(answer_set_size)
    pairs: int | None = None
    every_list: int | None = None
    if answer_set_size > 1:
        lists = [(number.values, _numbers(dim, prompt_tokens)), (2, environments_log2)]
        pairs = _largest(lambda k: _not_excluded(k, lists, answer_set_size, keys, share))
        # M^k <= Q: the opposite of what excludes some list of k answers.
        fewer = [(base, -power) for base, power in lists]
        every_list = _largest(lambda k: not product_exceeds_one([(answer_set_size, k), *fewer]))
    return CountingCeiling(
        pairs=pairs,
        every_list_pairs=every_list,
        bits=bits,
        environments_log2=environments_log2,
        answer_bits=LogBound.of(
            answer_set_size,
            direction="lower",
            quantity=f"answers to choose from: {answers}",
            source=SOURCE,
        ),
        share=share,
        statement=statement(
            pairs=pairs,
            prompt_tokens=prompt_tokens,
            number=number,
            answers=answers,
            pool=keys,
            share=share,
            environments_log2=environments_log2,
        ),
        assumptions=assumptions,
        source=SOURCE,
        certificate=Certificate(
            kind="counting",
            bound=bits,
            inputs={
                "values_per_number": exact_text(number.values),
                "number_format": format_text(number),
                "dim": dim,
                "prompt_tokens": prompt_tokens,
                "environments_log2": environments_log2,
                "answer_set_size": exact_text(answer_set_size),
                "answer_set": answers,
                "pool": keys,
                "share_numerator": exact_text(share.numerator),
                "share_denominator": exact_text(share.denominator),
                "pairs": pairs,
                "every_list_pairs": every_list,
            },
        ),
    )


def shortest_prompt(
    *,
    pairs: int,
    number: NumberFormat,
    dim: int,
    answer_set_size: int,
    pool: int | None = None,
    share: Fraction = DEFAULT_SHARE,
    environments_log2: int = ENVIRONMENTS_LOG2,
) -> int:
    """The fewest prompt tokens with which the theorem does not exclude `pairs` answers.

    It inverts `counting_ceiling`: with m tokens the ceiling is at least `pairs` exactly when m
    is at least this number. Shorter prompts are proved not to do for random answers (but for
    `share` of the lists); that this length does is not claimed.

    Args:
        pairs: k, answers that must be right.
        number: What each number of the prompt can be.
        dim: d, numbers per prompt token.
        answer_set_size: M, answers each one is drawn from.
        pool: Keys among which the prompt may choose those it answers.
        share: Share of random answer lists let through.
        environments_log2: log2 H, environments that a prompt's answers may depend on.

    Returns:
        A number of prompt tokens; 0 if even no prompt at all is not excluded.

    Raises:
        UserError: A size is no whole number or too small, or the share is out of range.
        TypeError: The share is a float.
    """
    require_positive_int("pairs", pairs)
    require_positive_int("answer set size", answer_set_size)
    keys, share = _pool(pool), _share(share)
    environments = (2, _environments(environments_log2))

    def excluded(tokens: int) -> bool:
        lists = [(number.values, _numbers(dim, tokens)), environments]
        return not _not_excluded(pairs, lists, answer_set_size, keys, share)

    return _largest(excluded) + 1 if excluded(0) else 0


def _not_excluded(
    pairs: int, lists: list[tuple[int, int]], answer_set_size: int, pool: int, share: Fraction
) -> bool:
    """Whether B(pairs) > share, exactly, with Q the product of powers `lists`."""
    return product_exceeds_one(
        [
            *lists,
            (_choices(max(pool, pairs), pairs), 1),
            (answer_set_size, -pairs),
            (share.denominator, 1),
            (share.numerator, -1),
        ]
    )


def _largest(holds: Callable[[int], bool]) -> int:
    """The largest k >= 0 of an initial segment {0..k} on which `holds`; it holds at 0."""
    low, high = 0, 1
    while holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _choices(keys: int, pairs: int) -> int:
    """C(keys, pairs), by flint: a hundred times faster than math.comb for long lists."""
    return int(fmpz.bin_uiui(keys, pairs))


def _numbers(dim: int, prompt_tokens: int) -> int:
    """The numbers in a prompt, d m."""
    require_positive_int("numbers per prompt token", dim)
    if prompt_tokens != 0 or isinstance(prompt_tokens, bool):
        require_positive_int("prompt tokens", prompt_tokens, remedy="give 0 or more")
    return dim * prompt_tokens


def _environments(log2: int) -> int:
    """log2 H, checked: 0 or more."""
    if log2 != 0 or isinstance(log2, bool):
        require_positive_int("log2 of the environments", log2, remedy="give 0 or more")
    return log2


def _pool(pool: int | None) -> int:
    return 0 if pool is None else require_positive_int("pool of keys", pool)


def _share(share: Fraction) -> Fraction:
    if not isinstance(share, Fraction):
        raise TypeError(f"the share must be an exact Fraction, got {share!r}")
    if not 0 < share < 1:
        raise UserError(
            "share of answer lists let through",
            "be above 0 and below 1",
            got=str(share),
            remedy="leave it out to let one in a million through",
        )
    return share
