"""Two heads that may write anything, near the corner where both prompts weigh infinitely much.

At v = 0 both columns of M = (mu^1, mu^2) are (1, .., 1), and f jumps: close to the corner it
depends on the direction in which v leaves. Since mu^i = 1 - v_i p^i with p^i = s^i mu^i,

    span(mu^1, mu^2) = span(mu^1, e),      e = (1 - tau) p^1 - tau p^2,    tau = v_2 / (v_1 + v_2),

which is smooth in (v, tau). With X = G less its part along mu^1, and p^1, p^1 + p^2 less theirs
called alpha and beta, the squared distance of G from matrices with columns in that span is

    |X|^2 - Q(tau) / N(tau),     N = |alpha - tau beta|^2,     Q = |X^T (alpha - tau beta)|^2,

so it is at least L on an interval of tau iff (|X|^2 - L) N - Q >= 0 there: a quadratic in tau.
Its coefficients are enclosed over the box, and L is found by bisection. The limit is tight as the
box shrinks to the corner, unlike Eckart and Young's, which lets e be anything.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from promptlimits.lab.one_layer.oracle.parts import Part
from promptlimits.lab.one_layer.setting import Floats
from promptlimits.lipschitz.balls.entries import Balls

CLOSE: Final = 0.1
"""Boxes within this distance of v = 0, in units of 1 / s, are tried."""

_BISECTIONS: Final = 40


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
    """Proved limits of at least 0 on the f of a `free_pair`, over boxes (N, 2)."""
    if not len(centre):
        return np.zeros(0)
    first, slopes, fixed = _enclosed(part, centre, half)
    size = (first * first).sum(1).reciprocal()

    def beside(columns: Balls) -> Balls:
        """Columns (N, k, n) less their part along mu^1."""
        return columns - (first * size[:, None])[..., None] * (first[:, None] @ columns)

    rest = beside(fixed)
    alpha = beside(slopes[:, :, :1])
    beta = beside(slopes[:, :, :1] + slopes[:, :, 1:])
    along, across = alpha.swap(1, 2) @ rest, beta.swap(1, 2) @ rest
    norm = [_inner(alpha, alpha), -_inner(alpha, beta), _inner(beta, beta)]
    pull = [_inner(along, along), -_inner(along, across), _inner(across, across)]
    total = _inner(rest, rest)
    ends = _ends(centre, half)
    low, high = np.zeros(len(centre)), np.maximum(total.lower(), 0.0)
    high = np.where(np.isfinite(high), high, 0.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        left = total - Balls.exact(middle)
        proved = _nonnegative([left * n - q for n, q in zip(norm, pull, strict=True)], ends)
        low, high = np.where(proved, middle, low), np.where(proved, high, middle)
    return low


def _inner(left: Balls, right: Balls) -> Balls:
    return (left * right).sum(2).sum(1)


def _enclosed(part: Part, centre: Floats, half: Floats) -> tuple[Balls, Balls, Balls]:
    """Enclose c mu^1 (N, k), c p (N, k, 2) and G (N, k, m) over boxes."""
    one, scale = Balls.exact(np.ones(1)), Balls.exact(part.scale[:, None])[None]
    whole = Balls.around(centre, half)[:, None]
    move = Balls.around(np.zeros(half.shape), half)[:, None]
    excess = part.excess[None]
    share = (one + excess * Balls.exact(centre)[:, None]).reciprocal()
    # rho v mu(v) = rho c m + rho m mu(v) x, and mu(v) = m - s m mu(v) x.
    shift = share * (one + excess * whole).reciprocal() * move
    own = (one + excess) * (share * Balls.exact(centre)[:, None] + shift)
    tight = share - excess * shift
    fixed = part.targets[None] - (own[..., None] * part.means[None]).sum(2)
    return (scale * tight)[:, :, 0], scale * excess * tight, fixed


def _ends(centre: Floats, half: Floats) -> tuple[Floats, Floats]:
    """Limits of tau = v_2 / (v_1 + v_2) over each box."""
    low, high = np.maximum(centre - half, 0.0), centre + half
    least = low[:, 1] / np.maximum(high[:, 0] + low[:, 1], 1e-300)
    most = high[:, 1] / np.maximum(low[:, 0] + high[:, 1], 1e-300)
    # Wider by far more than the rounding of these few operations.
    return np.clip(least - 1e-12, 0.0, 1.0), np.clip(most + 1e-12, 0.0, 1.0)


def _nonnegative(terms: list[Balls], ends: tuple[Floats, Floats]) -> NDArray[np.bool_]:
    """Whether c_0 + 2 c_1 tau + c_2 tau^2 >= 0 is proved between the ends.

    A convex c_2 tau^2 is at least its tangent anywhere; what remains is concave, so least at
    an end.
    """
    convex = np.maximum(terms[2].mid, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(convex > 0, -terms[1].mid / convex, 0.0)
    at = np.clip(np.nan_to_num(vertex), *ends)
    bent, touch = Balls.exact(convex), Balls.exact(at)
    constant, slope = terms[0] - bent * touch * touch, terms[1] + bent * touch
    twice = slope + slope
    first, last = (
        (constant + end * (twice + end * (terms[2] - bent))).lower()
        for end in map(Balls.exact, ends)
    )
    return np.asarray(np.minimum(first, last) >= 0)
