"""What a prompt can hold, whatever the model: counting of answers, and of vector targets.

**Answers.** A prompt has m tokens of d numbers, each of which takes one of at most N values.
Fix the model, n keys, H environments (hardware, kernels, how keys are put into batches, library
versions) and, for each of them, any rule that turns a prompt into a list of n answers, one for
each key. Draw the n right answers independently and uniformly from a set of M >= 2. Then

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

**Values.** A prompt is stored in one format and computed with in another. The model sees a
function of the stored number and computes with a function of what it sees, so the smaller of the
two counts limits what can make a difference. Counted are the bit patterns of finite numbers, +0
and -0 as two: 1/x and copysign tell them apart, and the price is under 4e-10 bits per number
(float32). A finite stored number can still overflow when it is converted, so two infinities are
added to the count of a computing format that differs from the stored one.

**Tightness.** For n = k, (1) is attained: let prompts produce Q different lists. A
selection (pool > k) is counted by the union bound, which is not attained. Against trained
prompts the gap is large: nothing here looks at the weights.

**Cost.** Some 2 log2(k) comparisons, exact, well under a millisecond each.

**Vector targets.** Prompts take at most R values: N^(d m_p) if each number is kept in a format of N
values, V^(m_p) if each token is one of a vocabulary of V. Fix the model, k inputs and H
environments (hardware, kernels, batches, library versions); no Lipschitz constant, no continuity
and no exact arithmetic is needed. The share of the volume of the lists of k targets (products of
balls of radius r, in the norm errors are measured in) that some prompt brings within eps in some
environment is at most

    Q (eps/r)^(d m k),    Q = H R.

*Proof.* One prompt in one environment gives one list of outputs; what is within eps of it is a
product of k balls of radius eps. Add up over R prompts and H environments. []

So lists are excluded from k > log Q / (d m log(r/eps)) on: kappa = log Q/(d m_p log(r/eps)) in
the units of Theorem 1 (kappa m_p/m pairs), which helps only where its kappa* is below that.
The form "min of the net and 2^b per number" with targets 3 eps apart would give
log N/log(r/(3 eps)), which is weaker: no delta is lost here, as no net is needed.

**Tightness.** Attained while Q disjoint balls of radius eps fit.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Final

from flint import arb, fmpz
from pydantic import Field, PlainValidator, field_validator

from promptlimits.base.exact import (
    Powers,
    Rule,
    exceeds_one,
    grid_up,
    is_one,
    largest,
    log,
    log_product,
    number_text,
    outward_float,
    shown,
    sign,
)
from promptlimits.bounds.core import (
    AS_TEXT,
    Count,
    Natural,
    Positive,
    Share,
    Size,
    Theorem,
    decades,
    whole,
)
from promptlimits.bounds.prompt_capacity import FIXED, VOLUME, below_radius

# Finite bit patterns: 2 signs * exponents that are not reserved * mantissas.
FORMATS: Final = {
    "float64": 2 * 2047 * 2**52,
    "float32": 2 * 255 * 2**23,
    "bfloat16": 2 * 255 * 2**7,
    "float16": 2 * 31 * 2**10,
    "float8_e5m2": 2 * 31 * 2**2,
    "float8_e4m3fn": 2 * (16 * 2**3 - 1),  # no infinities, one NaN per sign
}


def _values(value: object) -> int:
    """A count, or "stored" or "stored/computed" of the table."""
    if not isinstance(value, str) or value[:1].isdigit():
        return whole(2, None)(value)
    stored, _, computed = value.partition("/")
    if not {stored, computed or stored} <= FORMATS.keys():
        raise Rule(
            f"be one of {', '.join(FORMATS)}, two of them such as float32/float16, or a count",
            "give the format the prompt is stored in, and that it is computed with if it differs",
        )
    overflow = 0 if computed in ("", stored) else 2
    return min(FORMATS[stored], FORMATS[computed or stored] + overflow)


Values = Annotated[int, PlainValidator(_values), AS_TEXT]
"""Values of one number or token: a count of 2 or more, or a format's name."""


def format_name(values: int) -> str:
    """What takes so many values, in words."""
    for name, count in FORMATS.items():
        if values == count:
            return name
        if values == count + 2:
            return f"{values:,} values, as of another format computed with in {name}"
    return f"{shown(values)} values"


def environments_text(environments_log2: int) -> str:
    """How many environments there are."""
    if environments_log2 == 0:
        return "1 decoding environment"
    return f"2^{environments_log2} decoding environments"


class Counting(Theorem):
    """Most answers that prompts of one size can hold, whatever the model."""

    kind = "counting"
    source = "promptlimits: counting theorem (proved here)"
    assumptions = (
        "The answers are independent and each is uniform over the given set of answers.",
        (
            "The model, the keys and the decoding rule are fixed beforehand, not chosen to suit "
            "the answers."
        ),
        (
            "The answers are a function of the prompt and of one of at most {environments} "
            "(hardware, kernels, batches, library versions) fixed before the list is drawn: no "
            "sampling."
        ),
        (
            "The number of prompt tokens is fixed beforehand, and each number in the prompt is "
            "finite and takes one of the counted values."
        ),
        "Nothing else about the answers reaches the model: no other weights, no text, no examples.",
    )
    dim: Size = Field(description="Numbers per prompt token.")
    prompt_tokens: Natural = Field(description="Tokens of the prompt.")
    values: Values = Field(description="Format of a number of the prompt, or how many values.")
    answers: Count = Field(description="Size of the set that answers are drawn from.")
    pool: Natural = Field(
        default=0, description="Keys among which the prompt may choose those it answers; 0: none."
    )
    share: Share = Field(
        default=Fraction(1, 2**20), description="Share of random lists that may be in reach."
    )
    environments_log2: Natural = Field(
        default=64, description="log2 of the environments that answers may depend on."
    )

    def rests_on(self) -> tuple[str, ...]:
        """The assumptions, with the number of environments."""
        environments = environments_text(self.environments_log2)
        return tuple(text.format(environments=environments) for text in self.assumptions)

    @property
    def numbers(self) -> int:
        """d m."""
        return self.dim * self.prompt_tokens

    @property
    def lists(self) -> Powers:
        """Q."""
        return (self.values, self.numbers), (2, self.environments_log2)

    def log_prompts(self) -> arb:
        """log N^(d m)."""
        return self.numbers * log(self.values)

    def prompt_bits(self) -> float:
        """What a prompt can hold at most, in bits; rounded up."""
        return outward_float(lambda: self.log_prompts() / log(2), up=True)

    def log_share(self, pairs: int) -> arb:
        """log B(pairs)."""
        keys = max(self.pool, pairs)
        over, one, other = (arb(n + 1).lgamma() for n in (keys, pairs, keys - pairs))
        return log_product([*self.lists, (self.answers, -pairs)]) + over - one - other

    def excluded(self, pairs: int) -> bool:
        """Whether B(pairs) <= share, exactly."""
        keys, share = max(self.pool, pairs), (self.share.denominator, self.share.numerator)
        powers = [*self.lists, (self.answers, -pairs), (share[0], 1), (share[1], -1)]

        def tie() -> bool:
            return is_one([*powers, (int(fmpz.bin_uiui(keys, pairs)), 1)])

        return sign(lambda: self.log_share(pairs) - log(self.share), tie) <= 0

    def every_list(self, pairs: int) -> bool:
        """Whether M^pairs <= Q, exactly."""
        return not exceeds_one([(self.answers, pairs), *((n, -power) for n, power in self.lists)])

    def value(self) -> dict[str, Any]:
        """Most pairs, None with a single answer to give: then there is no ceiling."""
        random = self.answers > 1
        return {
            "log_prompts": grid_up(self.log_prompts),
            "pairs": largest(lambda k: not self.excluded(k)) if random else None,
            "every_list_pairs": largest(self.every_list) if random else None,
        }

    def claim(self, value: dict[str, Any], *, answers: str | None = None) -> str:
        """The claim; it never says that particular facts cannot be held."""
        pairs = value["pairs"]
        if pairs is None:
            return (
                "There is no ceiling: with a single answer to give, the answers carry no "
                "information."
            )
        rare, part = 1 / self.share, f"a share of {number_text(self.share, commas=True)}"
        if rare.denominator == 1:
            part = f"one in {number_text(rare, commas=True)}"
        chosen = answers or f"a set of {_many(self.answers)} answers"
        drawn = f"each drawn at random from {chosen}, at most {part} can"
        lists = (
            f"lists of {self.pool:,} answers, {drawn} have more than {pairs:,} answered right by"
            if self.pool > pairs
            else f"lists of more than {pairs:,} answers, {drawn} be answered in full by"
        )
        tokens = f"{self.prompt_tokens:,} token{'' if self.prompt_tokens == 1 else 's'}"
        return (
            f"Of all {lists} any prompt of {tokens} ({format_name(self.values)}), however it is "
            f"found, in any of {environments_text(self.environments_log2)} fixed beforehand; this "
            "is about random answers and does not say that particular facts, which the model may "
            f"predict, cannot be held. Lists of more than {value['every_list_pairs']:,} answers "
            "include some that no prompt answers in full."
        )


def shortest_prompt(case: Counting, pairs: int) -> int:
    """The fewest prompt tokens with which the theorem does not exclude `pairs` answers.

    It inverts the ceiling: with m tokens the ceiling is at least `pairs` exactly when m is at
    least this number. That this length does is not claimed.

    Args:
        case: The case; its own number of prompt tokens is not used.
        pairs: k, answers that must be right.

    Returns:
        A number of prompt tokens; 0 if even no prompt at all is not excluded.
    """

    def excluded(tokens: int) -> bool:
        return case.model_copy(update={"prompt_tokens": tokens}).excluded(pairs)

    return largest(excluded) + 1 if excluded(0) else 0


def _many(answers: int) -> str:
    return (
        f"{answers:,}" if answers.bit_length() <= 50 else f"at least 2^{answers.bit_length() - 1}"
    )


class VectorCounting(Theorem):
    """Letters: d dim, m_p prompt_tokens, m tokens, k pairs, r radius."""

    kind = "vector_counting"
    source = "promptlimits: counting cap for vector targets (proved here)"
    assumptions = (
        FIXED,
        (
            "Each prompt is one of the counted values, and the outputs are a function of it and of "
            "one of at most {environments} (hardware, kernels, batches, library versions) fixed "
            "beforehand."
        ),
        "Nothing else about the targets reaches the model.",
        VOLUME,
    )
    dim: Size
    prompt_tokens: Size
    tokens: Size = 1
    pairs: Size = 1
    radius: Positive
    eps: Positive
    values: Values
    per_token: bool = Field(default=False, strict=True)
    environments_log2: Natural = 64
    _below = field_validator("eps")(below_radius)

    def rests_on(self) -> tuple[str, ...]:
        """The assumptions, with the number of environments."""
        environments = environments_text(self.environments_log2)
        return tuple(text.format(environments=environments) for text in self.assumptions)

    @property
    def prompts(self) -> str:
        """What a prompt is made of."""
        if self.per_token:
            return f"vocabulary of {number_text(self.values)} tokens"
        return format_name(self.values)

    @property
    def lists(self) -> Powers:
        """Q."""
        power = self.prompt_tokens * (1 if self.per_token else self.dim)
        return (self.values, power), (2, self.environments_log2)

    def log_share(self) -> arb:
        """log of Q (eps/r)^(d m k)."""
        numbers = self.dim * self.tokens * self.pairs
        return log_product(self.lists) + numbers * log(self.eps / self.radius)

    def kappa(self) -> arb:
        """log Q/(d m_p log(r/eps)), to set beside kappa* of Theorem 1."""
        log_prompts = log_product(self.lists) / (self.dim * self.prompt_tokens)
        return log_prompts / log(self.radius / self.eps)

    def excluded(self, pairs: int, share: Fraction = Fraction(1)) -> bool:
        """Whether Q (eps/r)^(d m k) < share, exactly."""
        ratio, numbers = self.radius / self.eps, self.dim * self.tokens * pairs
        volume = [(ratio.numerator, numbers), (ratio.denominator, -numbers)]
        asked = [(share.numerator, 1), (share.denominator, -1)]
        return exceeds_one([*volume, *asked, *((n, -power) for n, power in self.lists)])

    def most_pairs(self) -> int:
        """The most pairs that are not excluded."""
        return largest(lambda k: not self.excluded(k))

    def value(self) -> dict[str, Any]:
        """The share, and the most pairs of which all lists may be reached."""
        return {"log_share": grid_up(self.log_share), "most_pairs": self.most_pairs()}

    def claim(self, value: dict[str, Any]) -> str:
        """The share in decades."""
        return (
            f"of all lists of {self.pairs:,} targets of {self.tokens:,} tokens of {self.dim:,} "
            f"numbers, at most a share of {decades(value['log_share'])} is reached within eps/r = "
            f"{shown(self.eps / self.radius)} by prompts of {self.prompt_tokens:,} tokens "
            f"({self.prompts}) in any of {environments_text(self.environments_log2)}, whatever the "
            f"model; of more than {value['most_pairs']:,} targets, some lists are not; under the "
            "assumptions that it states"
        )
