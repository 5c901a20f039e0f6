"""What the counting theorem claims and rests on, in words that an engineer can check."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from promptlimits.base.bound import Assumption, Source
from promptlimits.theory.number_formats import NumberFormat, names_a_format

SOURCE: Final = Source(
    reference="promptlimits",
    statement="counting theorem (promptlimits.theory.token_capacity)",
    form="proved here",
)

RANDOM_ANSWERS: Final = (
    "The answers are independent and each is uniform over the given set of answers."
)
"""The one assumption about the task itself; a task drawn at random meets it."""

_FIXED: Final = (
    "The model, the keys and the decoding rule are fixed beforehand, "
    "not chosen to suit the answers."
)
_STORED: Final = (
    "The number of prompt tokens is fixed beforehand, "
    "and each number in the prompt is finite and kept in the stated format."
)
_NOTHING_ELSE: Final = (
    "Nothing else about the answers reaches the model: no other weights, no text, no examples."
)

ENVIRONMENTS_LOG2: Final = 64
"""log2 H: as many environments of decoding are allowed for unless told otherwise."""


def environments_text(environments_log2: int) -> str:
    """How many environments there are."""
    if environments_log2 == 0:
        return "1 decoding environment"
    return f"2^{environments_log2} decoding environments"


def counting_assumptions(
    answers_random: bool | None = None, environments_log2: int = ENVIRONMENTS_LOG2
) -> tuple[Assumption, ...]:
    """All that the theorem rests on."""
    decoded = (
        "The answers are a function of the prompt and of one of at most "
        f"{environments_text(environments_log2)} (hardware, kernels, batches, library versions) "
        "fixed before the list is drawn: no sampling."
    )
    texts = (_FIXED, decoded, _STORED, _NOTHING_ELSE)
    return (
        Assumption(text=RANDOM_ANSWERS, holds=answers_random),
        *(Assumption(text=text) for text in texts),
    )


def answers_in_words(size: int) -> str:
    """A set of answers of which only the size is known."""
    if size == 1:
        return "a set of a single answer"
    if size.bit_length() <= 50:
        return f"a set of {size:,} answers"
    return f"a set of at least 2^{size.bit_length() - 1} answers"


def exact_text(number: int) -> str:
    """An exact integer as text that `int(text, 0)` reads, however long it is.

    Python refuses decimal text of more than 4,300 digits; hexadecimal has no such limit.
    """
    return str(number) if number.bit_length() <= 4096 else hex(number)


def format_text(number: NumberFormat) -> str:
    """A number's format as a certificate names it: so that the name fixes the count."""
    if names_a_format(number.name):
        return number.name
    return f"{number.name}: {exact_text(number.values)} values"


def statement(
    *,
    pairs: int | None,
    prompt_tokens: int,
    number: NumberFormat,
    answers: str,
    pool: int,
    share: Fraction,
    environments_log2: int,
) -> str:
    """The claim in words; it never says that particular facts cannot be held."""
    if pairs is None:
        return (
            "There is no ceiling: with a single answer to give, the answers carry no information."
        )
    part = (
        f"one in {share.denominator:,}"
        if share.numerator == 1
        else f"a share of {share.numerator:,}/{share.denominator:,}"
    )
    drawn = f"each drawn at random from {answers}, at most {part} can"
    lists = (
        f"lists of {pool:,} answers, {drawn} have more than {pairs:,} answered right by"
        if pool > pairs
        else f"lists of more than {pairs:,} answers, {drawn} be answered in full by"
    )
    tokens = f"{prompt_tokens:,} token{'' if prompt_tokens == 1 else 's'} ({format_text(number)})"
    return (
        f"Of all {lists} any prompt of {tokens}, however it is found, in any of "
        f"{environments_text(environments_log2)} fixed beforehand; this is about random answers "
        "and does not say that particular facts, which the model may predict, cannot be held."
    )
