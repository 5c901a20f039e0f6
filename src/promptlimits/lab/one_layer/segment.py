"""The second answers that prompts reach once the first is met: for plots and for insight.

Notation as in `setting`, two queries, t_j = u_j - x_0.

**One head** (after [@wang2023]; proved here). Behind a prompt with sum of exponentials Z that meets
t_1 exactly, with mu = Z_2/(Z_2 + Z) in (0, 1),

    t_2  =  (1 - mu) t_1 + mu ( a_2 + (Z_1/Z_2)(t_1 - a_1) ):

an open segment from t_1 (mu -> 0, a heavy prompt) to an end (mu -> 1, a light one).

*Proof.* (Z_j + Z) t_j = Z_j a_j + Z A for both j; eliminate Z A. []

Of it, prompts reach:
- nothing, unless t_1 lies in the range of V, as a_1 and A do;
- all of it, with one token, if c is no combination of the rows of V (`realise.rank_condition`);
- else, c = V^T eta, the Z with

      log Z - log m_p <= eta . A(Z) < log Z       (m_p = 1: eta . A(Z) = log Z),

  A(Z) = t_1 + (Z_1/Z)(t_1 - a_1), Gibbs' condition. With r = log(Z/Z_2), so mu = 1/(1 + e^r), that
  is -log m_p <= g(r) < 0 for g(r) = eta.t_1 - log Z_2 + (Z_1/Z_2) eta.(t_1 - a_1) e^(-r) - r. If
  eta.(t_1 - a_1) >= 0, g falls and one interval is reached; if not, g rises and then falls, and
  there are up to two. Only differences of scores enter, so scores may be large.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lab.one_layer.setting import (
    Floats,
    SharedQuery,
    query_statistics,
    score_vectors,
    value_maps,
)
from promptlimits.nets.paper.weights import exact_array

_ZERO: Final = 1e-10
_BISECTIONS: Final = 200
_FAR: Final = 700.0
"""log(Z/Z_2) is followed at least up to here: beyond, mu is 0 or 1 in floats, or nearly so."""

_FLAT: Final = 1e-300
"""A slope of Gibbs' condition below this is felt only where mu is 1 in floats."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """Second answers behind prompts that meet the first; one head.

    Attributes:
        first: t_1, the end for heavy prompts (mu = 0), (d,); not reached.
        end: The end for light prompts (mu = 1), (d,); not reached.
        log_second: log Z_2.
        free: Whether one token reaches all of it.
        slopes: (eta.t_1 - log Z_2, (Z_1/Z_2) eta.(t_1 - a_1)) of Gibbs' condition; zeros if
            `free`.
    """

    first: Floats
    end: Floats
    log_second: float
    free: bool
    slopes: tuple[float, float]

    def point(self, mu: float) -> Floats:
        """The second answer t_2 at mu, (d,)."""
        return np.asarray((1 - mu) * self.first + mu * self.end)

    def log_weight(self, mu: float) -> float:
        """log Z of the prompts that reach the point at mu, of (0, 1)."""
        return float(self.log_second + np.log1p(-mu) - np.log(mu))

    def reached(self, prompt_tokens: int | None = None) -> tuple[tuple[float, float], ...]:
        """The part that prompts of a given length reach, as intervals of mu."""
        if prompt_tokens is not None:
            require_positive_int("prompt_tokens", prompt_tokens)
        if self.free:
            return ((0.0, 1.0),)
        low = -math.inf if prompt_tokens is None else -math.log(prompt_tokens)
        if prompt_tokens == 1:
            return tuple(sorted((_mu(r), _mu(r)) for r in self._roots(0.0)))
        ends = self._ends(low if math.isfinite(low) else -_FAR)
        cuts = sorted({*ends, *self._roots(0.0), *self._roots(low)})
        found: list[tuple[float, float]] = []
        for left, right in itertools.pairwise(cuts):
            if low <= self._gibbs((left + right) / 2) < 0:
                found.append((_mu(right), _mu(left)))
        return tuple(sorted(found))

    def _gibbs(self, ratio: float) -> float:
        """Gibbs' g at r = log(Z/Z_2); where e^(-r) is cut off, mu is 1 in floats."""
        constant, slope = self.slopes
        return constant + slope * math.exp(min(-ratio, _FAR)) - ratio

    def _ends(self, level: float) -> tuple[float, float]:
        """Limits on r: beyond, g crosses neither 0 nor the level unless mu is 1 in floats."""
        constant, slope = self.slopes
        wide = _FAR + abs(constant) + math.log1p(abs(slope)) - level
        return (-wide if slope >= 0 else -_FAR, wide)

    def _roots(self, level: float) -> tuple[float, ...]:
        """Where g equals a level, rising."""
        if not math.isfinite(level):
            return ()
        (low, high), slope = self._ends(level), self.slopes[1]
        if slope >= 0:
            return tuple(self._root(level, low, high))
        top = math.log(-slope)  # g' = 0
        return (*self._root(level, low, top), *self._root(level, top, high))

    def _root(self, level: float, low: float, high: float) -> list[float]:
        rising = self._gibbs(low) < level
        if rising == (self._gibbs(high) < level):
            return []
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if (self._gibbs(middle) < level) == rising:
                low = middle
            else:
                high = middle
        return [(low + high) / 2]


def segment(setting: SharedQuery, first: Floats) -> Segment:
    """The segment of second answers given the first; one head, two queries."""
    _require_plain_pair(setting)
    if len(setting.layer.heads) != 1:
        raise UserError(
            "the layer",
            "have one head for a segment",
            got=f"{len(setting.layer.heads)} heads",
            remedy="several heads reach no segment: use a layer with one",
        )
    met = exact_array("t_1", first, (setting.layer.dim,))
    known = query_statistics(setting)
    one, two = known.mean[0, 0], known.mean[1, 0]
    logs = known.log_weight[:, 0]
    value, score = value_maps(setting.layer)[0], score_vectors(setting)[0]
    if not _in_range(value, met):
        raise UserError(
            "t_1",
            "lie in the range of V = W_o W_v",
            got="an offset outside",
            remedy="no prompt meets such an answer exactly",
        )
    eta = np.linalg.lstsq(value.T, score, rcond=_ZERO)[0]
    free = float(np.linalg.norm(value.T @ eta - score)) > _ZERO * (1 + float(np.linalg.norm(score)))
    if logs[0] - logs[1] > _FAR:
        raise RunFailed(
            f"the first query weighs e^{logs[0] - logs[1]:.0f} times what the second does: the "
            "segment ends beyond the range of floats",
            remedy="exchange the queries, or scale the tokens down",
        )
    ratio = math.exp(logs[0] - logs[1])
    slope = ratio * float(eta @ (met - one))
    slopes = (float(eta @ met - logs[1]), slope if abs(slope) > _FLAT else 0.0)
    return Segment(
        first=met,
        end=two + ratio * (met - one),
        log_second=float(logs[1]),
        free=free,
        slopes=(0.0, 0.0) if free else slopes,
    )


def _mu(ratio: float) -> float:
    """Z_2/(Z_2 + Z) for r = log(Z/Z_2)."""
    if abs(ratio) >= _FAR:
        return 0.0 if ratio > 0 else 1.0
    return 1 / (1 + math.exp(ratio))


def _basis(value: Floats) -> Floats:
    left, sizes, _ = np.linalg.svd(value)
    return np.asarray(left[:, : int((sizes > _ZERO * max(sizes[0], 1e-300)).sum())])


def _in_range(value: Floats, vector: Floats) -> bool:
    basis = _basis(value)
    rest = vector - basis @ (basis.T @ vector)
    return bool(np.linalg.norm(rest) <= 1e-8 * (1 + np.linalg.norm(vector)))


def _require_plain_pair(setting: SharedQuery) -> None:
    if setting.front is not None or setting.rotary_base is not None:
        raise ValueError("the closed form is that of the plain layer")
    if setting.count != 2:
        raise UserError("the queries", "be two", got=setting.count, remedy="give a pair")
