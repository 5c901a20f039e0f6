"""Proportions: exact intervals, and how much more problems differ than chance alone lets them.

**Exact interval** (Clopper and Pearson 1934). Of n independent trials s succeed; the ends are the
proportions at which s or fewer, or s or more, would happen with probability (1 - confidence)/2.
It covers the true proportion at least as often as it says, for every n.

**Beta-binomial.** Each problem has a proportion of its own, from a beta distribution of mean p and
correlation rho = 1/(a + b + 1); of n trials on it s succeed. rho is 0 where all problems are
alike, and 1 where each succeeds always or never. A count of G problems of n trials each then has
1 + (n - 1) rho times the variance of a binomial one (`variance_factor`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betaln, expit
from scipy.stats import beta, chi2

from promptlimits.base.errors import UserError
from promptlimits.record.experiment import Interval

CONFIDENCE = 0.95


def exact_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """The Clopper-Pearson interval of a proportion.

    Args:
        successes: s, from 0 to n.
        trials: n, 1 or more.
        confidence: How often the interval covers at least.

    Returns:
        The share s/n and its interval.

    Raises:
        UserError: There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise UserError(
            "the successes",
            "be from 0 to the number of trials, which is 1 or more",
            got=f"{successes} of {trials}",
            remedy="count again",
        )
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta.isf(tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Interval(
        value=successes / trials,
        low=float(low),
        high=float(high),
        way=f"Clopper-Pearson, {confidence:.0%}",
    )


def overdispersion(successes: Sequence[int], trials: int) -> Interval:
    """rho of the beta-binomial distribution, by maximum likelihood with a profile interval.

    Args:
        successes: s of each problem.
        trials: n, the same for all.

    Returns:
        rho; without a value where all trials, or none, succeed, for then nothing is known of it.
    """
    counts = np.asarray(successes, dtype=np.float64)
    way = f"beta-binomial, profile likelihood, {CONFIDENCE:.0%}"
    if trials < 2 or not 0 < counts.sum() < trials * len(counts):
        return Interval(value=None, low=None, high=None, way=way)
    rhos = np.concatenate([[0.0], expit(np.linspace(-7, 7, 113))])
    profile = np.array([_profile(counts, trials, rho) for rho in rhos])
    inside = rhos[2 * (profile.max() - profile) <= chi2.ppf(CONFIDENCE, 1)]
    return Interval(
        value=float(rhos[profile.argmax()]), low=float(inside[0]), high=float(inside[-1]), way=way
    )


def variance_factor(rho: float, trials: int) -> float:
    """1 + (n - 1) rho."""
    return 1 + (trials - 1) * rho


def log_likelihood(
    counts: NDArray[np.float64], trials: int, mean: float, rho: float
) -> NDArray[np.float64]:
    """Logarithm of the beta-binomial probability of each count, up to log(n over s)."""
    if rho == 0:
        found = counts * np.log(mean) + (trials - counts) * np.log1p(-mean)
    else:
        a, b = mean * (1 - rho) / rho, (1 - mean) * (1 - rho) / rho
        found = betaln(counts + a, trials - counts + b) - betaln(a, b)
    return np.asarray(found, dtype=np.float64)


def _profile(counts: NDArray[np.float64], trials: int, rho: float) -> float:
    """The most that the likelihood is for a rho, over all means."""
    found = minimize_scalar(
        lambda mean: -log_likelihood(counts, trials, mean, rho).sum(),
        bounds=(1e-9, 1 - 1e-9),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return -float(found.fun)
