"""How far the value-table network is from a Lipschitz map: a proved limit, and where it holds.

**Statement.** Let F be the maps f: [0,1]^(d x m) -> [0,1]^(d x m) with
||f(X) - f(X')|| <= L ||X - X'|| in an entrywise p-norm (p = inf allowed). Let g be the network of
`value_table` with N cells a side, ramps of width eta < 1/(4 N), sharpness beta and pointer logits
`POINTER`; K = N^(d m), m_p = m K, n = m_p + m. With the prompt of f, for every X in which no
entry x has k/N - eta - zeta < x < k/N + zeta for a k = 1 .. N-1,

    ||g([P_f, X]) - f(X)|| <= (d m)^(1/p) ( L (1/(2 N) + zeta) + sigma ),

    sigma = 2 e^-b/(1 - e^-3b) + m e^(-POINTER + 2 beta tau n),
    tau = n^2 e^-POINTER,   b = beta (1 - 2 tau).

The X left out have measure at most 1 - (1 - (N - 1)(eta + 2 zeta))^(d m). On them the output is
still in [0,1]^(d x m), so that the distance of Theorem 1 of [@wang2023] is at most
(sup^p + d m measure)^(1/p).

**Proof.** *Digits.* Off the ramps each bit of floor(N x) is exactly 0 or 1 (clipped ReLUs), so
token j knows code c_j = sum_a N^a floor(N x_aj), at most N^d - 1; a prompt token has code 0.
Thresholds are float64 numbers next to w/N; those used for one x add up to at most 1, so jumps
move by at most 2^-53, which zeta = 2^-44 covers, and with it what float64 evaluation adds in
some 50 steps.
*First attention.* Head j gives query token j the logit POINTER, others 0: it returns c_j up to
(n-1) e^-POINTER (N^d - 1). So t = m sum_j N^(d j) c_j + j is off by at most
m (n-1) e^-POINTER sum_j N^(d j) (N^d - 1) < tau.
*Second attention.* Prompt token q has logit beta (2 t q - q^2), query tokens -POINTER (positions
are counted from the middle). Compared with q = t, a token at distance r >= 1 has a logit lower
by at least beta r^2 - 2 beta tau r >= b r^2; r^2 >= 1 + 3 (r - 1) sums the two sides. A query
token has one lower by POINTER - 2 beta tau n. So all but a share of at most sigma is on the entry
of X's cell; entries are in [0,1], query tokens hold 0 there: each number is off by at most sigma.
*Table.* The entry is f at the middle of the cell, at most 1/(2N) + zeta away in each number. []

**Differences from the sources.** The table holds f at middles, not corners: L/(2N), not L/N, so
2^(d m) times fewer tokens for the same precision. Digits come from depth log N, not from N ramps
in one layer. Attention is a softmax throughout, and what leaks through it is in the bound.

**Tightness.** A map with slope L through a cell attains L/(2N) up to zeta and sigma. **Cost.**
Microseconds.

**Sizes.** What a sufficient prompt length says of a necessary one, and LoRA's count. For the
L-Lipschitz maps of [0,1]^(d x m) to within eps in an entrywise p-norm:

- **Sufficient**, as published (Theorem 2.5 of hu2025): for some one-layer, one-head transformer a
  prompt of L_p >= m lam tokens, lam = (2 L (d m)^(1/p)/eps)^(d m), answers every input. It is the
  table of the map on a grid: a length that suffices for one construction, although the work calls
  it a lower bound ("it suffices that L_p is at least this"). The formula is known here from
  secondary sources that agree with a footnote of meyer2025: d = 768, L = 1, p = 2, eps = 30 give
  lam = 10^640.67 and L_p = 10^640.97 for m = 2.
- **Necessary** (`bounds.prompt_parameters.universality_lower_bound`), for transformers whose
  outputs are 1-Lipschitz in prompts with entries in [0, 1] (R = 1/2, largest entry), as those of
  `value_table` are. Without a prompt a network is one map g. The constants 0 and 1 are
  (d m)^(1/p) apart, so below half of that no g is near both; from there on the constant 1/2 is
  near every map.

For n answers of one layer, necessary prompts and LoRA's count: `bounds.prompt_parameters`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flint import arb

from promptlimits.base.bound import (
    PRECISION_BITS,
    Assumption,
    Exact,
    LogBound,
    Source,
    grid_upper,
    log_ball,
    require_exact_positive,
    short,
)
from promptlimits.base.errors import UserError, require_positive_int
from promptlimits.base.exact import ball, working_precision
from promptlimits.bounds.prompt_parameters import universality_lower_bound

SOURCE: Final = Source(
    reference="promptlimits",
    statement="value table (promptlimits.lab.universal.universal_bound), after Theorem 1 of "
    "wang2023",
    form="proved here",
)
ZETA: Final = Fraction(1, 2**44)
"""What rounding moves a jump of the digits by, at most."""

POINTER: Final = 64
"""Logit of the token that a head of the first attention points at, over all others."""

EXCEPTIONAL_SHARE: Final = Fraction(1, 10**6)
"""Share of the domain that ramps may take, unless told otherwise."""

MOST_TOKENS: Final = 2**25
"""Logits are integers times a power of two, exact in float64 up to here."""

_NARROWEST: Final = 42
_SHARPEST: Final = 128


@dataclass(frozen=True, kw_only=True)
class FunctionClass:
    """The L-Lipschitz maps of [0,1]^(d x m) into itself, and how precisely to answer them.

    Attributes:
        dim: d, numbers per token.
        tokens: m.
        lipschitz: L.
        eps: The error allowed, in the same norm.
        exponent: p of the entrywise norm, 1 or more; None for the largest entry.

    Raises:
        UserError: A value is out of range.
        TypeError: A quantity is a float.
    """

    dim: int
    tokens: int
    lipschitz: Exact
    eps: Exact
    exponent: Exact | None = None

    def __post_init__(self) -> None:
        require_positive_int("dim", self.dim)
        require_positive_int("tokens", self.tokens)
        require_exact_positive("lipschitz", self.lipschitz)
        require_exact_positive("eps", self.eps)
        if self.exponent is not None and require_exact_positive("exponent", self.exponent) < 1:
            raise UserError(
                "exponent", "be 1 or more", got=short(self.exponent), remedy="use 1, 2 or none"
            )

    @property
    def numbers(self) -> int:
        """Numbers in an input, d m."""
        return self.dim * self.tokens

    def norm_of_ones(self) -> arb:
        """(d m)^(1/p): the norm of a matrix of ones, at the current precision."""
        if self.exponent is None:
            return arb(1)
        power = Fraction(self.exponent)
        return (log_ball(self.numbers) * power.denominator / power.numerator).exp()


@dataclass(frozen=True, kw_only=True)
class TableShape:
    """The free numbers of the network."""

    cells: int  # N, cells along each side
    ramp: Fraction  # eta, a power of two
    sharpness: int  # beta, a power of two


@dataclass(frozen=True, kw_only=True)
class UniversalBound:
    """What is proved of the network for every map of its class.

    Attributes:
        sup_error: Upper limit on the error off the exceptional set.
        mean_error: Upper limit on the distance of Theorem 1 of wang2023, exceptional set
            included; None for the largest entry.
        exceptional_measure: Upper limit on the measure of the exceptional set, exactly.
    """

    sup_error: LogBound
    mean_error: LogBound | None
    exceptional_measure: Fraction


def log10_prompt_tokens(target: FunctionClass, cells: int) -> float:
    """About the logarithm to base 10 of m N^(d m), for messages and choices."""
    return math.log10(target.tokens) + target.numbers * math.log10(cells)


def prompt_tokens(target: FunctionClass, cells: int) -> int:
    """m_p = m N^(d m)."""
    logarithm = log10_prompt_tokens(target, cells)
    tokens = int(target.tokens * cells**target.numbers) if logarithm < 18 else None
    if tokens is None or tokens > MOST_TOKENS:
        raise UserError(
            "eps, lipschitz, dim and tokens",
            f"lead to a prompt of at most {MOST_TOKENS:,} tokens",
            got=f"{tokens:,} tokens" if tokens is not None else f"10^{logarithm:.1f} tokens",
            remedy="raise eps, or lower the others",
        )
    return tokens


def weights_of_network(target: FunctionClass, cells: int) -> int:
    """Numbers in the weights of the network of `value_table`."""
    dim, tokens, bits = target.dim, target.tokens, (cells - 1).bit_length()
    width = 3 * dim + tokens + 5
    # without attention: a head that is zero; neurons: 2 d, of which the first layer has d more
    digits = bits * (2 * (4 * width + width) + 3 * dim * (2 * width + 1))
    digits += dim * (2 * width + 1) if bits else 0
    gathering = tokens * 4 * width + width
    answering = (6 + 2 * dim) * width + 2 * dim * (2 * width + 1) + width
    return digits + gathering + answering


def choose_shape(target: FunctionClass, *, ramp: Fraction | None = None) -> TableShape:
    """The least table that is proved to meet the precision."""
    cells, sharpness = least_cells(target)
    chosen = _ramp(target, cells) if ramp is None else Fraction(ramp)
    mantissa = chosen.numerator == 1 and chosen.denominator.bit_count() == 1
    if not mantissa or not Fraction(1, 2**_NARROWEST) <= chosen <= Fraction(1, 8 * cells):
        raise UserError(
            "ramp",
            f"be a power of two from 2^-{_NARROWEST} to 1/(8 N), with N = {cells}",
            got=short(chosen),
            remedy="leave it out",
        )
    return TableShape(cells=cells, ramp=chosen, sharpness=sharpness)


def least_cells(target: FunctionClass) -> tuple[int, int]:
    """N and beta of the least table, without a limit on its size."""
    with working_precision(PRECISION_BITS):
        budget = arb(_exact(Fraction(target.eps))) / target.norm_of_ones()
        slope = _exact(Fraction(target.lipschitz))
        # One part in 128 for what leaks: a table hardly longer, and soft tables stay rare.
        sharpness = 8
        while sharpness < _SHARPEST and not _leak_of_table(sharpness) <= budget / 128:
            sharpness *= 2
        rest = budget - _leak_of_table(sharpness) * (1 + arb(2) ** -20) - arb(2) ** -80
        rest -= slope * _exact(ZETA)
        if not rest > 0:
            raise UserError(
                "eps",
                "be above what float64 resolves",
                got=f"{short(target.eps)} with a Lipschitz constant of {short(target.lipschitz)}",
                remedy="raise eps",
            )
        least = (slope / (2 * rest)).upper().ceil()
        return max(1, int(least.unique_fmpz() or least.upper().fmpq().numerator)), sharpness


def universal_bound(target: FunctionClass, shape: TableShape) -> UniversalBound:
    """The proved limits for one network.

    Args:
        target: The class.
        shape: The numbers of the network.

    Returns:
        The limits.
    """
    tokens = prompt_tokens(target, shape.cells)
    measure = exceptional_measure(target, shape)
    with working_precision(PRECISION_BITS):
        leak = leak_of_attention(prompt=tokens, queries=target.tokens, sharpness=shape.sharpness)
        table = Fraction(target.lipschitz) * (Fraction(1, 2 * shape.cells) + ZETA)
        sup = target.norm_of_ones() * (_exact(table) + leak)
        mean = None
        if target.exponent is not None:
            power = _exact(Fraction(target.exponent))
            mean = (sup**power + target.numbers * _exact(measure)) ** (1 / power)
        return UniversalBound(
            sup_error=_limit(sup, target, "largest error off the exceptional set"),
            mean_error=None if mean is None else _limit(mean, target, "error in the mean"),
            exceptional_measure=measure,
        )


def leak_of_attention(*, prompt: int, queries: int, sharpness: int) -> arb:
    """sigma: the share of the second attention that is not on the entry, at most."""
    length = arb(prompt + queries)
    drift = length**2 * (-arb(POINTER)).exp()
    slope = sharpness * (1 - 2 * drift)
    sides = 2 * (-slope).exp() / (1 - (-3 * slope).exp())
    return sides + queries * (2 * sharpness * drift * length - POINTER).exp()


def exceptional_measure(target: FunctionClass, shape: TableShape) -> Fraction:
    """Upper limit on the measure of the inputs that the bound leaves out."""
    left_out = (shape.cells - 1) * (shape.ramp + 2 * ZETA)
    return 1 - (1 - left_out) ** target.numbers


def as_float_above(bound: LogBound) -> float:
    """An upper limit as a float that is not below it."""
    with working_precision(PRECISION_BITS):
        end = bound.log.exp().upper()
        number = float(end)
        return number if arb(number) >= end else math.nextafter(number, math.inf)


def _leak_of_table(sharpness: int) -> arb:
    """Limit on sigma for every table that is allowed."""
    return leak_of_attention(prompt=MOST_TOKENS, queries=MOST_TOKENS, sharpness=sharpness)


def _ramp(target: FunctionClass, cells: int) -> Fraction:
    """The widest power of two that keeps to the share of the domain."""
    widest = min(Fraction(1, 8 * cells), EXCEPTIONAL_SHARE / (target.numbers * cells))
    bits = min(max((1 / widest).__ceil__().bit_length(), 3), _NARROWEST)
    return Fraction(1, 2**bits)


def _exact(value: Fraction) -> arb:
    return arb(value.numerator) / value.denominator


def _limit(value: arb, target: FunctionClass, quantity: str) -> LogBound:
    return LogBound(
        direction="upper",
        log=value.log(),
        quantity=quantity,
        source=SOURCE,
        assumptions=(
            Assumption(
                text=f"the map is Lipschitz with constant {short(target.lipschitz)} on the unit "
                "cube, with values in it"
            ),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class PromptLengths:
    """Prompt tokens for one class of maps."""

    # Upper limit on the published length that suffices for hu2025's construction.
    sufficient: LogBound
    # Log10 of what is needed at least; None where no prompt is needed.
    necessary_log10: float | None


def prompt_lengths(target: FunctionClass) -> PromptLengths:
    """Prompt tokens that suffice as published, and those that are needed."""
    if target.exponent is None:
        raise UserError(
            "exponent", "be a number", got="none", remedy="the published length needs one; give 2"
        )
    numbers, root = target.dim * target.tokens, Fraction(target.exponent)

    def log_length() -> arb:
        side = log_ball(Fraction(2) * target.lipschitz / target.eps)
        cells = numbers * (side + log_ball(numbers) * root.denominator / root.numerator)
        return cells + log_ball(target.tokens)

    sufficient = LogBound(
        direction="upper",
        log=grid_upper(log_length),
        quantity="prompt tokens that suffice for the table",
        source=Source(reference="hu2025", statement="Theorem 2.5", form="as published"),
    )
    return PromptLengths(sufficient=sufficient, necessary_log10=_necessary(target))


def _necessary(target: FunctionClass) -> float | None:
    """log10 of the tokens needed at least: one below half of the diameter, or what is proved."""
    with working_precision(PRECISION_BITS):
        if not bool(target.norm_of_ones() / 2 > ball(target.eps)):
            return None
    least: LogBound | None = None
    if 2 * target.eps < 1:
        least = universality_lower_bound(
            dim=target.dim,
            tokens=target.tokens,
            lipschitz=target.lipschitz,
            eps=target.eps,
            prompt_radius=Fraction(1, 2),
            prompt_lipschitz=1,
        )
    return max(0.0, least.lower_log10()) if least is not None else 0.0
