"""Verify a certificate of the counting cap for vector targets, with its own arithmetic.

It checks that the prompts named take the recorded number of values, that power log(values),
log(environments) and N log(eps/r) are the recorded logarithms, each rounded up to a multiple of
2^-96, that the bound is their sum, and that words, source and assumptions are those of the
theorem and its inputs.
"""

from __future__ import annotations

from typing import Any, Final

from promptlimits.checking.counting import environments_in_words, format_is_right
from promptlimits.checking.grid import decades, require_grid_log, require_words
from promptlimits.checking.intervals import log_of
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
    "counting cap for vector targets (promptlimits.theory.vector_counting)",
    "proved here",
)
_ASSUMPTIONS: Final = (
    "The model and the inputs are fixed beforehand, not chosen to suit the targets.",
    (
        "Each prompt is one of the counted values, and the outputs are a function of it and of one "
        "of at most {environments} (hardware, kernels, batches, library versions) fixed beforehand."
    ),
    "Nothing else about the targets reaches the model.",
    "The share is one of volume: targets uniform in the product of balls of the given radius.",
)
_INPUTS: Final = {
    "dim",
    "prompt_tokens",
    "tokens",
    "pairs",
    "radius",
    "eps",
    "prompts",
    "values",
    "per_token",
    "environments_log2",
}


def check(certificate: Any) -> str:
    """Verify a vector counting certificate."""
    with reading("vector_counting"):
        inputs, bound = open_certificate(certificate, kind="vector_counting", inputs=_INPUTS)
        dim, tokens = whole(inputs["dim"], 1), whole(inputs["tokens"], 1)
        length, pairs = whole(inputs["prompt_tokens"], 1), whole(inputs["pairs"], 1)
        radius = exact_fraction(inputs["radius"], above=0)
        eps = exact_fraction(inputs["eps"], above=0)
        name, values = text(inputs["prompts"]), long_integer(inputs["values"], 2)
        per_token, log2 = inputs["per_token"], whole(inputs["environments_log2"], 0)
        if not isinstance(per_token, bool) or eps >= radius:
            raise ValueError("eps is not below the radius, or a truth value is none")
    if not _counts(name, values, per_token):
        raise refuted("prompts of that name take another number of values")
    environments = environments_in_words(log2)
    assumptions = tuple(words.format(environments=environments) for words in _ASSUMPTIONS)
    require_words(
        bound,
        quantity=(
            f"share of the lists of {pairs} targets of {tokens} tokens of {dim} numbers that some "
            f"prompt of {length} tokens reaches; r = {fraction_text(radius)}, eps = "
            f"{fraction_text(eps)}"
        ),
        source=_SOURCE,
        assumptions=assumptions,
    )
    require_same(len(bound.factors), 3, "the number of factors")
    require_same(sum(len(each.factors) for each in bound.factors), 0, "a factor's factors")
    count, decoders, balls = bound.factors
    words = f"different prompts ({name})"
    power = length if per_token else dim * length
    require_words(count, quantity=words, source=_SOURCE, assumptions=assumptions)
    require_grid_log(count.log, lambda digits: log_of(values, digits) * power, words)
    require_words(decoders, quantity=environments, source=_SOURCE, assumptions=assumptions)
    require_grid_log(decoders.log, lambda digits: log_of(2, digits) * log2, environments)
    words = "volume of targets within eps of one output, over that of all"
    numbers = dim * tokens * pairs
    require_words(balls, quantity=words, source=_SOURCE, assumptions=assumptions)
    require_grid_log(balls.log, lambda digits: log_of(eps / radius, digits) * numbers, words)
    require_same(bound.log, count.log + decoders.log + balls.log, "the sum")
    return (
        f"of all lists of {pairs:,} targets of {tokens:,} tokens of {dim:,} numbers, at most a "
        f"share of {decades(bound.log)} is reached within eps/r = {shown(eps / radius)} by prompts "
        f"of {length:,} tokens ({name}) in any of {environments}, whatever the model; under the "
        "assumptions that it states"
    )


def _counts(name: str, values: int, per_token: bool) -> bool:
    """Whether the name fixes that count."""
    if per_token:
        return name == f"vocabulary of {number_text(values)} tokens"
    return format_is_right(name, values)
