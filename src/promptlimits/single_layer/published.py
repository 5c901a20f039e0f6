"""Theorems 5.4, 5.7 and 5.8 of [@meyer2025] on one layer, as published.

They are here to be compared with what holds, and carry the form "as published": 5.7 and 5.8 are
false as they stand. Each names the commands that refute it. 5.4, from [@wang2023], is true;
`unmemorizable` constructs its data.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt, perm
from typing import Final

from promptlimits._checks import require_positive_int
from promptlimits.bound import Exact, Source
from promptlimits.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PublishedStatement:
    """A published theorem.

    Attributes:
        source: Where it stands; the form is "as published".
        text: What it says, in our words.
        refuted_by: Commands whose counterexample refutes it as it stands; empty if it holds.
        instead: What this package proves in its place, and where.
    """

    source: Source
    text: str
    refuted_by: tuple[str, ...]
    instead: str


def _source(number: str) -> Source:
    return Source(reference="meyer2025", statement=f"Theorem {number}", form="as published")


THEOREM_5_4: Final = PublishedStatement(
    source=_source("5.4"),
    text="One head, W_q, W_k and W_v of full rank, the symmetric part of W_q^T W_k regular, "
    "||W_1|| ||W_2|| < 1: there are two queries with targets that no prompt of any length meets.",
    refuted_by=(),
    instead="single_layer.unmemorizable: the data in closed form, and for any number of heads",
)
THEOREM_5_7: Final = PublishedStatement(
    source=_source("5.7"),
    text="h heads, d > h^2 + 2h: there is a vector space of dimension "
    "(d-h^2-h)!/(d-h^2-2h-1)! of which no prompt reaches the image under the MLP, less 0.",
    refuted_by=("promptlimits errata E11", "promptlimits errata E12"),
    instead="single_layer.reachable: the dimension is at most R = sum rank(V_i) + h",
)
THEOREM_5_8: Final = PublishedStatement(
    source=_source("5.8"),
    text="h heads, d > h^2 + 2h, targets orthogonal to each other and to what attention makes of "
    "the queries alone: some error is at least "
    "(1 - ||W_1|| ||W_2||) r/2, r the least norm of a target.",
    refuted_by=("promptlimits errata E13", "promptlimits errata E14"),
    instead="single_layer.error_floor: r/sqrt(h+1), r the least norm of an offset before the "
    "MLP, for offsets under the same conditions",
)
PUBLISHED: Final = (THEOREM_5_4, THEOREM_5_7, THEOREM_5_8)


def published_dimension(*, dim: int, heads: int) -> int:
    """The dimension in Theorem 5.7; it is false, and can exceed the (h+1) d there are.

    Args:
        dim: d, above h^2 + 2h.
        heads: h.

    Returns:
        (d-h^2-h)!/(d-h^2-2h-1)!, exactly.

    Raises:
        UserError: d is h^2 + 2h or less.
    """
    _require_width(dim, heads)
    return perm(dim - heads**2 - heads, heads + 1)


def published_floor(
    *, dim: int, heads: int, least_target: Exact, mlp_product: Exact = 0
) -> Fraction:
    """The floor in Theorem 5.8, (1 - ||W_1|| ||W_2||) r/2; it is false, so this is no bound.

    Args:
        dim: d, above h^2 + 2h.
        heads: h.
        least_target: r, the least norm of a target, as the paper has it.
        mlp_product: ||W_1|| ||W_2||, below 1.

    Returns:
        The published number.

    Raises:
        UserError: A number is out of the theorem's range.
    """
    _require_width(dim, heads)
    if not 0 <= mlp_product < 1:
        raise UserError(
            "||W_1|| ||W_2||", "be below 1", got=str(mlp_product), remedy="scale the MLP down"
        )
    if least_target <= 0:
        raise UserError(
            "the least target", "be above 0", got=str(least_target), remedy="leave out zeros"
        )
    return (1 - Fraction(mlp_product)) * Fraction(least_target) / 2


def _require_width(dim: int, heads: int) -> None:
    require_positive_int("heads", heads)
    if require_positive_int("dim", dim) <= heads**2 + 2 * heads:
        raise UserError(
            "dim",
            f"be above h^2 + 2h = {heads**2 + 2 * heads}, as the theorem has it",
            got=dim,
            remedy=f"take at most {isqrt(dim + 1) - 1} heads",
        )
