"""Who needs how much: sizes of the constructions for one class of maps, and what none gets around.

All rows speak of the same (d, m, L, eps) and entrywise p-norm; petrov2024a of the sphere S^M with
as many free numbers, M = d m, and geodesic distance.

- **Value table** (`value_table`): exact counts of the network built here.
- **Three stages, after** [@wang2023] (`three_stage`): delta = 1/ceil(2 (L+1) (d m)^(1/p)/eps),
  since rounding inputs and values down to the grid costs (L+1) delta (d m)^(1/p), at most half of
  eps; counts as derived there. That work's own constants were not available.
- **hu2025**: the length of Theorem 2.5 (`theory.hu2025`); sufficient, not necessary.
- **petrov2024a**: the exponent of the published length as recalled; and a length proved here.

**Prefix of one head, sharper.** Let f: S^M -> R^(M+1) be L-Lipschitz in the geodesic distance,
|f| <= B, T context tokens. With delta = min(1/2, eps/(6 L)) and a delta-net of N points, a prefix
of N tokens makes one fixed head answer f to within eps, and

    N <= 2 M pi^(M-1) (A_M/A_(M-1)) delta^-M,   A_M the area of S^M.

*Proof.* Prefix token i has logit lam <x, b_i> and value f(b_i), context tokens logit 0, value 0.
Points farther than 2 delta from x weigh at most exp(-lam (cos delta - cos 2 delta)) next to the
nearest, and cos delta - cos 2 delta >= (4/3) delta^2 for delta <= 1/2. For lam >=
(2/delta^2) log(pi N/delta) they add less than L delta to the 2 L delta of the near ones; for
lam >= log(2 B T/eps)/cos delta context tokens add at most eps/2. The caps of radius delta/2
around a largest delta-separated set are disjoint, and sin t >= 2 t/pi bounds their area. []

**Lower bounds.** `theory.prompt_parameters.universality_lower_bound` with prompts in [0,1]
(R = 1/2, largest entry) and outputs 1-Lipschitz in them, which the value table satisfies for every
fixed input: no such transformer does with fewer. And to meet n pairs exactly, any transformer of
any depth needs m_p >= n m for almost all targets: P -> outputs is locally Lipschitz, so from fewer
numbers its image is a null set.

**Cost.** Microseconds; no count is multiplied out beyond 10^18.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from flint import arb

from promptlimits._typing import JsonObject
from promptlimits.bound import PRECISION_BITS, Exact, LogBound, log_ball, working_precision
from promptlimits.constructions.universal_bound import (
    FunctionClass,
    least_cells,
    weights_of_network,
)
from promptlimits.errors import UserError
from promptlimits.theory.hu2025 import table_length
from promptlimits.theory.prompt_parameters import universality_lower_bound

Kind: TypeAlias = Literal["exactly", "about", "at most", "at least", "of the order of"]

_MULTIPLIED_OUT: Final = 18
"""Powers of ten up to which counts are whole numbers; beyond, logarithms."""

_READ_AS_NUMBER: Final = 6
_TOWER: Final = 12


@dataclass(frozen=True, kw_only=True)
class Size:
    """One count, exactly or as a logarithm.

    Attributes:
        kind: What the number is: "exactly", or "about" where an exact count is shown by its
            logarithm; a limit; or an order.
        exact: The count, if it is small enough to be written out.
        log10: Its logarithm to base 10.
        log10_log10: The logarithm of that, where even the logarithm is huge.
    """

    kind: Kind = "exactly"
    exact: int | None = None
    log10: float | None = None
    log10_log10: float | None = None

    def text(self) -> str:
        """As a person reads it."""
        if self.exact is not None:
            number = f"{self.exact:,}"
        elif self.log10 is not None:
            number = f"10^{self.log10:,.2f}"
        else:
            number = f"10^(10^{self.log10_log10:,.2f})"
        return number if self.kind == "exactly" else f"{self.kind} {number}"

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {
            "kind": self.kind,
            "exact": self.exact,
            "log10": self.log10,
            "log10_log10": self.log10_log10,
        }


@dataclass(frozen=True, kw_only=True)
class SizesRow:
    """What one construction takes, or what every one must.

    Attributes:
        name: The construction.
        status: Where its numbers come from.
        numbers: Name and size of each count.
        notes: What must be said with them.
    """

    name: str
    status: str
    numbers: tuple[tuple[str, Size], ...]
    notes: tuple[str, ...] = ()

    def size(self, name: str) -> Size:
        """The size of that name."""
        return dict(self.numbers)[name]

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {
            "name": self.name,
            "status": self.status,
            "numbers": {name: size.to_json() for name, size in self.numbers},
            "notes": list(self.notes),
        }


def sizes_table(target: FunctionClass) -> tuple[SizesRow, ...]:
    """All constructions for one class, and the lower bound.

    Args:
        target: The class; its norm has an exponent.

    Returns:
        The rows.

    Raises:
        UserError: The norm is that of the largest entry.
    """
    if target.exponent is None:
        raise UserError(
            "exponent", "be a number", got="none", remedy="the published counts need one; give 2"
        )
    return (
        value_table_sizes(target),
        three_stage_sizes(target),
        hu_sizes(target),
        petrov_sizes(target),
        lower_bound_sizes(target),
    )


def value_table_sizes(target: FunctionClass) -> SizesRow:
    """Counts of the network of `value_table`, for any precision.

    Args:
        target: The class.

    Returns:
        The row.
    """
    try:
        cells = least_cells(target)[0]
        notes: tuple[str, ...] = ()
    except UserError:  # beyond float64: the same network in exact arithmetic
        cells = _ceiling(lambda: _stretch(target, Fraction(target.lipschitz)) * 64 / 127)
        notes = ("beyond what float64 resolves: counts are those of exact arithmetic",)
    dim, tokens, bits = target.dim, target.tokens, (cells - 1).bit_length()
    width = 3 * dim + tokens + 5
    prompt = _power(cells, target.numbers, factor=tokens)
    return SizesRow(
        name="Value table",
        status="built and proved here",
        numbers=(
            ("prompt tokens", prompt),
            ("numbers in the prompt", _power(cells, target.numbers, factor=tokens * dim)),
            ("cells along a side", _whole(cells)),
            ("layers", _whole(2 * bits + 2)),
            ("layers with attention", _whole(2)),
            ("heads of a layer", _whole(tokens)),
            ("width", _whole(width)),
            ("hidden neurons of a layer", _whole(2 * dim)),
            ("weights", _whole(weights_of_network(target, cells))),
        ),
        notes=notes,
    )


def three_stage_sizes(target: FunctionClass) -> SizesRow:
    """Counts of the three-stage route.

    Args:
        target: The class.

    Returns:
        The row.
    """
    slope = Fraction(target.lipschitz) + 1
    steps = _ceiling(lambda: 2 * _stretch(target, slope))
    dim, width = target.dim, target.dim + 1
    prompt = _power(steps, target.numbers, factor=target.tokens)
    if prompt.exact is None:
        # n = m_p + m; the m query tokens change nothing that is shown
        length = prompt
        value = _tower(_log10(dim) + _log10_of(prompt), math.log10(_log10(steps)))
        weights = value
        quantiser = _scaled(length, dim * steps)
        attention = _scaled(length, steps**dim) if dim < 10**4 else _power_of(length, steps, dim)
    else:
        tokens = prompt.exact + target.tokens
        length = _whole(tokens)
        quantiser = _whole(dim * tokens * steps)
        value = _power(steps, dim * tokens, factor=tokens)
        attention = _power(steps, dim, factor=tokens, plus=1)
        per_layer = 8 * width + 4 * (2 * width + 1) + width
        if value.exact is not None and attention.exact is not None and quantiser.exact is not None:
            layers = value.exact + attention.exact + quantiser.exact
            weights = _whole(layers * per_layer)
        else:
            weights = _scaled(_sum(value, attention, quantiser), per_layer)
    return SizesRow(
        name="Three stages, after wang2023",
        status="counts derived here; not that work's printed constants",
        numbers=(
            ("prompt tokens", prompt),
            ("1/delta", _whole(steps)),
            ("tokens in all", length),
            ("layers of the quantiser", quantiser),
            ("layers with attention", attention),
            ("layers of the value map", value),
            ("heads of a layer", _whole(2)),
            ("hidden neurons of a layer", _whole(4)),
            ("weights", weights),
        ),
        notes=("in T^(2,1,4): two heads of size 1, four hidden neurons, width d + 1",),
    )


def hu_sizes(target: FunctionClass) -> SizesRow:
    """The published length of one layer with a table.

    Args:
        target: The class.

    Returns:
        The row.
    """
    exponent = Fraction(target.exponent or 1)
    found = table_length(
        dim=target.dim,
        tokens=target.tokens,
        lipschitz=target.lipschitz,
        alpha=exponent,
        eps=target.eps,
    )
    length = found.prompt_tokens.upper_log10()
    with working_precision(PRECISION_BITS):
        side = float((2 * _stretch(target, Fraction(target.lipschitz))).log().upper()) / math.log(
            10
        )
    # (1/delta)^(d (L_p + L)), an order only
    neurons = _log10(target.dim) + max(length, _log10(target.tokens))
    neurons += math.log10(side) if side > 0 else -math.inf
    width = (
        Size(kind="of the order of", log10_log10=neurons)
        if neurons > _TOWER
        else _limit("of the order of", 10**neurons)
    )
    return SizesRow(
        name="hu2025, Theorem 2.5",
        status="as published, known from secondary sources; sufficient, not necessary",
        numbers=(
            ("prompt tokens", _limit("at most", length)),
            ("layers with attention", _whole(1)),
            ("heads of a layer", _whole(1)),
            ("hidden neurons of a layer", width),
        ),
        notes=("the number of hidden neurons is recalled, as an order only",),
    )


def petrov_sizes(target: FunctionClass) -> SizesRow:
    """Prefix lengths of one head on the sphere S^M, M = d m.

    Args:
        target: The class.

    Returns:
        The row.
    """
    free = target.numbers
    published = max(0.0, (10 + 14 * free + 4 * free**2) * -_log10(target.eps))
    with working_precision(PRECISION_BITS):
        sharper = float(sphere_net(free, net_radius(target)).upper()) / math.log(10)
    return SizesRow(
        name="petrov2024a, on a sphere of as many free numbers",
        status="one head, width 3 (M + 1), M = d m",
        numbers=(
            ("prompt tokens as published", _limit("of the order of", published)),
            ("prompt tokens", _limit("at most", math.nextafter(sharper, math.inf))),
            ("layers with attention", _whole(1)),
            ("heads of a layer", _whole(1)),
            ("width", _whole(3 * (free + 1))),
        ),
        notes=(
            "the published exponent of 1/eps, 10 + 14 M + 4 M^2, is recalled, without its constant",
            (
                "the second length is proved here: 2 M pi^(M-1) (A_M/A_(M-1)) delta^-M, "
                "delta = min(1/2, eps/(6 L))"
            ),
        ),
    )


def lower_bound_sizes(target: FunctionClass) -> SizesRow:
    """What no transformer as tame as the value table does with less, to within eps everywhere.

    Without a prompt a network is one map g. The constants 0 and 1 are (d m)^(1/p) apart, so below
    half of that no g is near both; from there on the constant 1/2 is near every map.

    Args:
        target: The class.

    Returns:
        The row.
    """
    found: LogBound | None = None
    if 2 * target.eps < 1:
        found = universality_lower_bound(
            dim=target.dim,
            tokens=target.tokens,
            lipschitz=target.lipschitz,
            eps=target.eps,
            prompt_radius=Fraction(1, 2),
            prompt_lipschitz=1,
        )
    log10 = max(0.0, found.lower_log10()) if found is not None else 0.0
    with working_precision(PRECISION_BITS):
        needed = bool(_stretch(target, Fraction(1)) > 2)
    least = _limit("at least", log10) if needed else Size(kind="at least", exact=0)
    constant = () if needed else ("none is needed: the constant 1/2 is within eps of every map",)
    return SizesRow(
        name="Transformers as tame as the value table, lower bound",
        status="proved here",
        numbers=(("prompt tokens", least),),
        notes=(
            *constant,
            "to within eps at every input; the value table leaves out a share of them",
            "prompts with entries in [0, 1], outputs 1-Lipschitz in them (largest entry)",
            "to meet n pairs exactly: at least n m prompt tokens, for almost all targets",
        ),
    )


def net_radius(target: FunctionClass) -> Fraction:
    """Delta of the net on the sphere: min(1/2, eps/(6 L))."""
    return min(Fraction(1, 2), Fraction(target.eps) / (6 * Fraction(target.lipschitz)))


def sphere_net(free: int, radius: Fraction) -> arb:
    """Logarithm of the limit on a net of the sphere S^M, at the current precision.

    Args:
        free: M.
        radius: delta, geodesic.

    Returns:
        log(2 M pi^(M-1) (A_M/A_(M-1)) delta^-M).
    """
    half = arb(free) / 2
    areas = arb.pi().log() / 2 + half.lgamma() - (half + arb(1) / 2).lgamma()
    return log_ball(2 * free) + (free - 1) * arb.pi().log() + areas - free * log_ball(radius)


def _stretch(target: FunctionClass, slope: Fraction) -> arb:
    """Slope (d m)^(1/p)/eps."""
    number = slope / Fraction(target.eps)
    return arb(number.numerator) / number.denominator * target.norm_of_ones()


def _ceiling(evaluate: Callable[[], arb]) -> int:
    """A whole number at or above a real one, the least but for ties that precision cannot tell."""
    with working_precision(4 * PRECISION_BITS):
        end = evaluate().upper()
        return max(1, math.ceil(_as_fraction(end)))


def _as_fraction(number: arb) -> Fraction:
    mantissa, exponent = (int(part) for part in number.man_exp())
    return Fraction(mantissa) * Fraction(2) ** exponent


def _whole(number: int) -> Size:
    if number < 10**_MULTIPLIED_OUT:
        return Size(exact=number)
    return Size(kind="about", log10=_log10(number))


def _limit(kind: Kind, log10: float) -> Size:
    """A limit or an order as a whole number where it is small."""
    if log10 > _READ_AS_NUMBER:
        return Size(kind=kind, log10=log10)
    # At 10^6 the tenth digit behind the point is sure; a whole number is not missed by more.
    return Size(kind=kind, exact=max(1, math.ceil(10**log10 - 1e-6)), log10=log10)


def _log10(number: Exact) -> float:
    """Logarithm of a positive exact number of any size."""
    exact = Fraction(number)
    return math.log10(exact.numerator) - math.log10(exact.denominator)


def _power(base: int, exponent: int, *, factor: int, plus: int = 0) -> Size:
    """Factor base^exponent + plus."""
    logarithm = exponent * _log10(base) + _log10(factor)
    if logarithm < _MULTIPLIED_OUT:
        return Size(exact=factor * base**exponent + plus)
    return Size(kind="about", log10=logarithm)


def _power_of(size: Size, base: int, exponent: int) -> Size:
    return Size(kind="about", log10=_log10_of(size) + exponent * _log10(base))


def _scaled(size: Size, factor: int) -> Size:
    """A huge size times a factor; nothing changes where its logarithm is huge."""
    if size.log10_log10 is not None:
        return size
    return Size(kind="about", log10=_log10_of(size) + _log10(factor))


def _sum(*sizes: Size) -> Size:
    """Sizes together; where a logarithm is huge, the largest."""
    tower = max(sizes, key=lambda size: size.log10_log10 or -math.inf)
    if tower.log10_log10 is not None:
        return tower
    logarithms = [_log10_of(size) for size in sizes]
    most = max(logarithms)
    rest = math.fsum(10 ** (each - most) for each in logarithms)
    return Size(kind="about", log10=most + math.log10(rest))


def _log10_of(size: Size) -> float:
    if size.exact is not None:
        return _log10(size.exact)
    return size.log10 if size.log10 is not None else math.inf


def _tower(*parts: float) -> Size:
    """10 to the power of 10 to the sum of the parts."""
    total = math.fsum(parts)
    if total < _TOWER:
        return Size(kind="about", log10=10**total)
    return Size(kind="about", log10_log10=total)
