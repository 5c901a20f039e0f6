"""Two heads that may write anything, near the corner where both prompts weigh infinitely much.

At v = 0 both columns of M = (mu^1, mu^2) are (1, .., 1), and f jumps: close to the corner it
depends on the direction in which v leaves. Since mu^i = 1 - v_i p^i with p^i = s^i mu^i,

    span(mu^1, mu^2) = span(mu^1, e),      e = (1 - tau) p^1 - tau p^2,    tau = v_2 / (v_1 + v_2),

which is smooth in (v, tau). Over a box, tau runs through an interval, which is cut in pieces; on
each, the distance of G from matrices with columns in that span is enclosed to first order. The
least over the pieces is a limit for the box, and tight in the limit, unlike Eckart and Young's,
which lets e be anything.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.single_layer.interval_boxes import Balls
from promptlimits.single_layer.oracle_parts import Part
from promptlimits.single_layer.setting import Floats

PIECES: Final = 384
"""Pieces of the range of tau to begin with."""

ROUNDS: Final = 2
WORST: Final = 40
PARTS: Final = 8
"""In each round the worst pieces are cut in so many parts: enclosures are of first order."""

CLOSE: Final = 0.1
"""Boxes within this distance of v = 0, in units of 1 / s, are tried."""

_BATCH: Final = 32


def free_pair(part: Part) -> bool:
    """Whether the part is one of two heads with every vector in both ranges, and k above 2."""
    width = part.targets.shape[1]
    full = all(basis.shape == (width, width) for basis in part.bases)
    return full and part.excess.shape[1] == 2 and part.excess.shape[0] > 2


def near_corner(part: Part, centre: Floats, half: Floats) -> NDArray[np.bool_]:
    """Boxes close to v = 0 and not small beside their distance from it: where this limit pays."""
    high = centre + half
    steep = (high * (part.excess.mid.max(axis=0) + 1e-3)).max(axis=1)
    coarse = half.max(axis=1) >= 0.1 * high.max(axis=1)
    return np.asarray((steep <= CLOSE) & coarse)


def cone_floor(part: Part, centre: Floats, half: Floats) -> Floats:
    """Lower limits on the part's f over boxes.

    Args:
        part: As `free_pair` accepts.
        centre: (N, 2).
        half: (N, 2).

    Returns:
        Proved limits of at least 0, (N,).
    """
    if not len(centre):
        return np.zeros(0)
    batches = [
        _floor(part, centre[at : at + _BATCH], half[at : at + _BATCH])
        for at in range(0, len(centre), _BATCH)
    ]
    return np.concatenate(batches)


def _floor(part: Part, centre: Floats, half: Floats) -> Floats:
    one, scale = Balls.exact(np.ones(1)), Balls.exact(part.scale[:, None])[None]
    whole = Balls.around(centre, half)[:, None]
    move = Balls.around(np.zeros(half.shape), half)[:, None]
    excess = part.excess[None]
    share = (one + excess * Balls.exact(centre)[:, None]).reciprocal()
    share_all = (one + excess * whole).reciprocal()
    # rho v mu(v) = rho c m + rho m mu(v) x, and mu(v) = m - s m mu(v) x.
    grown = (one + excess) * share
    own = grown * Balls.exact(centre)[:, None] + grown * share_all * move
    fixed = part.targets[None] - (own[..., None] * part.means[None]).sum(2)
    tight = share - excess * share * share_all * move
    first = (scale * tight)[:, :, 0]
    slopes = scale * excess * tight
    size = (first * first).sum(1).reciprocal()
    beside = fixed - (first * size[:, None])[..., None] * (first[:, None] @ fixed)
    edge, other = slopes[:, :, 0], slopes[:, :, 1]

    def limits(tau: Balls) -> Floats:
        away = edge[:, None] - tau[..., None] * (edge + other)[:, None]
        along = (away * first[:, None]).sum(2) * size[:, None]
        away = away - along[..., None] * first[:, None]
        weight = (away * away).sum(2).reciprocal()
        inner = away[:, :, None] @ beside[:, None]
        return _squares(beside[:, None] - (away * weight[..., None])[..., None] * inner)

    tau = _pieces(centre, half)
    found = limits(tau)
    for _ in range(ROUNDS):
        order = np.argsort(found, axis=1)
        worst = order[:, :WORST]
        rest = np.take_along_axis(found, order[:, WORST:], axis=1)
        tau = Balls(
            np.concatenate(
                [_cut(tau, worst).mid, np.take_along_axis(tau.mid, order[:, WORST:], 1)], 1
            ),
            np.concatenate(
                [_cut(tau, worst).rad, np.take_along_axis(tau.rad, order[:, WORST:], 1)], 1
            ),
        )
        fresh = limits(tau[:, : WORST * PARTS])
        found = np.concatenate([fresh, rest], axis=1)
    return np.asarray(found.min(axis=1))


def _cut(tau: Balls, chosen: NDArray[np.int64]) -> Balls:
    """Chosen pieces, each covered by `PARTS` smaller ones."""
    mid, rad = (np.take_along_axis(array, chosen, axis=1) for array in (tau.mid, tau.rad))
    steps = (2 * np.arange(PARTS) + 1) / PARTS - 1
    fine = mid[..., None] + rad[..., None] * steps
    width = np.broadcast_to(rad[..., None] / PARTS + 1e-15, fine.shape)
    return Balls(fine.reshape(len(mid), -1), width.reshape(len(mid), -1))


def _pieces(centre: Floats, half: Floats) -> Balls:
    """Balls that cover tau = v_2 / (v_1 + v_2) over each box, (N, PIECES)."""
    low, high = np.maximum(centre - half, 0.0), centre + half
    least = low[:, 1] / np.maximum(high[:, 0] + low[:, 1], 1e-300)
    most = high[:, 1] / np.maximum(low[:, 0] + high[:, 1], 1e-300)
    # Wider by far more than the rounding of these four operations.
    least, most = least - 1e-12, most + 1e-12
    steps = (np.arange(PIECES) + 0.5) / PIECES
    mid = least[:, None] + (most - least)[:, None] * steps
    rad = (most - least)[:, None] * (0.5 / PIECES) + 1e-12
    return Balls(mid, np.broadcast_to(rad, mid.shape))


def _squares(left: Balls) -> Floats:
    """Lower limits on the squared norms of (N, P, k, m)."""
    exact = Balls.exact(left.mid)
    squares = (exact * exact).sum(3).sum(2).lower()
    length = np.nextafter(np.sqrt(np.maximum(squares, 0.0)), 0.0)
    away = Balls.around(np.zeros(left.shape), left.rad).norm_upper((2, 3))
    floor = np.nextafter(length - away, -np.inf)
    floor = np.where(np.isfinite(floor), np.maximum(floor, 0.0), 0.0)
    return np.asarray(np.maximum(np.nextafter(floor * floor, 0.0), 0.0))
