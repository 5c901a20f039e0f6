r"""Where success falls below one half: a logistic curve in the size, with its k50.

Of n_j trials at size x_j, s_j succeed, with probability 1/(1 + exp(b (x_j - k50))) and b >= 0. Both
numbers are fitted by maximum likelihood. The interval of k50 holds every value at which the best
b loses at most half the chi-square quantile of log-likelihood (profile likelihood).

**Separation.** Where everything succeeds up to one size and nothing from the next one on, b is
infinite and every k50 between the two fits as well: the value is the middle, and the interval what
lies between them (and more where trials are so few that half of them could fail by chance). Where
nothing succeeds at all, k50 lies below the smallest size and above `floor`, a size at which success
is certain (0 pairs are always held); where everything succeeds, above the largest, and there is
no upper end.

**Why the search is safe.** The log-likelihood is concave in (b k50, b), so its profile over k50 has
one summit, perhaps a flat one, and for a fixed k50 it is concave in b: bisection finds both.

**Problems that differ.** `dispersion` divides the log-likelihood by a variance factor, as of the
beta-binomial distribution (`proportions.variance_factor`); 1 where trials are independent.

All arrays may have leading axes, one curve each: a bootstrap of thousands is one call.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import chi2

from promptlimits.experiments.statistics.proportions import CONFIDENCE
from promptlimits.record.experiment import Interval

Array: TypeAlias = NDArray[np.float64]

_FLATTEST: Final = math.log(1e-3)
_STEEPEST: Final = math.log(1e4)
_HALVINGS: Final = 28
_SECTIONS: Final = 32
_GOLDEN: Final = (5**0.5 - 1) / 2


def thresholds(
    sizes: ArrayLike,
    successes: ArrayLike,
    trials: ArrayLike,
    *,
    floor: float = 0.0,
    place: ArrayLike = 0.5,
) -> Array:
    """k50 of each curve.

    Args:
        sizes: x, rising, of shape (n,).
        successes: s, of shape (..., n).
        trials: n_j, of a shape that fits.
        floor: A size at which success is certain.
        place: Of a separated curve's k50 between its two sizes, from 0 to 1, of shape (...,). A
            bootstrap draws it, for what the data do not tell must widen its interval.

    Returns:
        Of shape (...,); where everything succeeds, within a step beyond the largest size.
    """
    x, s, n = _arrays(sizes, successes, trials)
    shape, s, n = s.shape[:-1], s.reshape(-1, len(x)), n.reshape(-1, len(x))
    low, high = _separated(x, s, n, floor)
    high = np.where(np.isinf(high), x[-1] + (x[-1] - x[-2]), high)
    found = low + np.broadcast_to(np.asarray(place, dtype=np.float64), shape).ravel() * (high - low)
    fitted = np.isnan(low)
    if fitted.any():
        found[fitted] = _summit(x, s[fitted], n[fitted], floor)
    return np.asarray(found.reshape(shape), dtype=np.float64)


def threshold(
    sizes: ArrayLike,
    successes: ArrayLike,
    trials: ArrayLike,
    *,
    floor: float = 0.0,
    dispersion: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """k50 of one curve, with its profile-likelihood interval.

    Args:
        sizes: x, rising; two or more.
        successes: s of each size.
        trials: n of each size.
        floor: A size at which success is certain.
        dispersion: Variance of a count over that of a binomial one.
        confidence: How often the interval covers, in large samples.

    Returns:
        The threshold; without an upper end where the data do not give one.
    """
    x, s, n = _arrays(sizes, successes, trials)
    low, high = profile_interval(
        x, s[None], n[None], floor=floor, dispersion=dispersion, confidence=confidence
    )
    way = f"profile likelihood of a logistic curve, {confidence:.0%}"
    if dispersion > 1:
        way += f", with {dispersion:.3g} times the variance of independent trials"
    value = float(thresholds(x, s, n, floor=floor))
    open_above = not math.isfinite(high[0])
    unlimited = open_above and bool((s == n).all())
    return Interval(
        value=None if unlimited else value,
        low=float(low[0]),
        high=None if open_above else float(high[0]),
        way=way,
    )


def profile_interval(
    sizes: ArrayLike,
    successes: ArrayLike,
    trials: ArrayLike,
    *,
    floor: float = 0.0,
    dispersion: float = 1.0,
    confidence: float = CONFIDENCE,
) -> tuple[Array, Array]:
    """Both ends of the interval of k50, for curves of shape (c, n); infinite for no end."""
    x, s, n = _arrays(sizes, successes, trials)
    top = thresholds(x, s, n, floor=floor)
    allowed = _best(x, s, n, top) - dispersion * chi2.ppf(confidence, 1) / 2

    def end(outside: float) -> Array:
        """The last k50 towards `outside` that is allowed."""
        near, far = top.copy(), np.full_like(top, outside)
        open_end = _best(x, s, n, far) >= allowed
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            inside = _best(x, s, n, middle) >= allowed
            near, far = np.where(inside, middle, near), np.where(inside, far, middle)
        return np.where(open_end, np.copysign(np.inf, outside - top), near)

    spread = 10 * (x[-1] - x[0] + 1)
    low, high = end(x[0] - spread), end(x[-1] + spread)
    # In full: b ends somewhere, so that bisection stops short of the sizes themselves.
    lower, upper = _separated(x, s, n, floor)
    low, high = np.fmin(low, lower), np.fmax(high, upper)
    return np.maximum(low, floor), high


def _arrays(
    sizes: ArrayLike, successes: ArrayLike, trials: ArrayLike
) -> tuple[Array, Array, Array]:
    x, s = np.asarray(sizes, dtype=np.float64), np.asarray(successes, dtype=np.float64)
    return x, s, np.broadcast_to(np.asarray(trials, dtype=np.float64), s.shape)


def _separated(x: Array, s: Array, n: Array, floor: float) -> tuple[Array, Array]:
    """Of curves that fall from all to nothing in one step, the two sizes; NaN for others."""
    all_of, none_of = s == n, s == 0
    held = all_of.sum(axis=-1)
    falls = np.arange(len(x)) < held[..., None]
    plain = (np.where(falls, all_of, none_of)).all(axis=-1)
    edges = np.concatenate([[floor], x, [np.inf]])
    nothing = np.full(plain.shape, np.nan)
    return np.where(plain, edges[held], nothing), np.where(plain, edges[held + 1], nothing)


def _summit(x: Array, s: Array, n: Array, floor: float) -> Array:
    """k50 at the top of the profile, by golden sections; curves of shape (c, n)."""
    step = x[-1] - x[-2]
    low = np.full(len(s), min(floor, x[0] - step))
    high = np.full(len(s), x[-1] + step / 2)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = _best(x, s, n, left), _best(x, s, n, right)
    for _ in range(_SECTIONS):
        rises = at_left < at_right
        low, high = np.where(rises, left, low), np.where(rises, high, right)
        kept = np.where(rises, right, left)
        at_kept = np.where(rises, at_right, at_left)
        fresh = np.where(rises, low + _GOLDEN * (high - low), high - _GOLDEN * (high - low))
        at_fresh = _best(x, s, n, fresh)
        left, right = np.where(rises, kept, fresh), np.where(rises, fresh, kept)
        at_left = np.where(rises, at_kept, at_fresh)
        at_right = np.where(rises, at_fresh, at_kept)
    return np.asarray((low + high) / 2, dtype=np.float64)


def _best(x: Array, s: Array, n: Array, k50: Array) -> Array:
    """The log-likelihood at k50 (c,) of curves (c, n), at its best b."""
    away = x - k50[:, None]
    low, high = np.full(len(k50), _FLATTEST), np.full(len(k50), _STEEPEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # Slope in b of the sum of s log p + (n - s) log(1 - p), with p = expit(-b away).
        slope = (away * (n * expit(-np.exp(middle)[:, None] * away) - s)).sum(axis=-1)
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    steep = np.exp((low + high) / 2)[:, None] * away
    found: Array = -(s * np.logaddexp(0, steep) + (n - s) * np.logaddexp(0, -steep)).sum(axis=-1)
    return found
