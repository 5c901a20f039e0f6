"""The Lipschitz constant that counts for covering: cells need not be balls (Theorem F).

**Statement.** Let E be an invertible matrix and Lambda such that moves X - X' of the prompt move
every token read by at most Lambda max_j |E^(-1) (X_j - X'_j)| (an ellipsoid bound started from
E E^T). Cut the prompt's tokens into cells P_j + (eps/Lambda) E B, B the unit ball: two prompts,
one of them the centre of the other's cell, have outputs within eps in token norm. The ball of
radius r in R^d has such a net, with centres inside, of N points with

    log N  <=  d (log(2 r + a) + log L_eff - log eps),
    L_eff = Lambda / |det E|^(1/d),   a = eps ||E|| / Lambda,

and prompts of m tokens one of N^m points.

**Proof.** The domain is convex, so local limits integrate along segments. Let K = (eps/Lambda) E B.
Take points of the ball with differences outside K, as many as fit: they are a net. The sets
P_j + K/2 have disjoint interiors and lie in the ball of radius r + a/2, as ||k|| <= a/2 on K/2.
Comparing volumes, N <= (r + a/2)^d / ((1/2)^d (eps/Lambda)^d |det E|).

Source: promptlimits, after the volume argument of Lemma C_in. Tightness: E = I is the usual count
with L_eff = Lambda; other E trade directions. Cost: one ellipsoid search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from flint import arb

from promptlimits.base.bound import (
    PRECISION_BITS,
    Exact,
    LogBound,
    Source,
    log_ball,
    working_precision,
)
from promptlimits.base.checks import require_positive_int
from promptlimits.base.errors import UserError
from promptlimits.lipschitz.balls.rounding import ball, require_radius
from promptlimits.lipschitz.balls.spectral import spectral_norm
from promptlimits.lipschitz.ellipsoid.certificate import (
    EllipsoidBound,
    certify_choices,
    near_float,
)
from promptlimits.lipschitz.ellipsoid.search import Effort, search_choices
from promptlimits.nets.paper.weights import Array, TransformerWeights

_SOURCE = Source(
    reference="promptlimits",
    statement="cells in the shape of an ellipsoid (promptlimits.lipschitz.ellipsoid.effective)",
    form="proved here",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class EffectiveLipschitz:
    """What replaces L where prompts are covered by cells.

    Attributes:
        bound: L_eff.
        shape: E, lower triangular.
        moves: The ellipsoid bound Lambda for moves measured by E, with its certificate.
        radius: r of the tokens' ball.
    """

    bound: LogBound
    shape: Array
    moves: EllipsoidBound
    radius: Fraction

    def cover(self, *, eps: Exact, prompt_tokens: int) -> LogBound:
        """How many prompts stand for all, each to within eps in token norm of the output."""
        if isinstance(eps, bool) or not isinstance(eps, int | Fraction) or eps <= 0:
            raise UserError("eps", "be an exact number above 0", got=eps, remedy="give a Fraction")
        require_positive_int("prompt_tokens", prompt_tokens)
        dim = self.shape.shape[0]
        longest = spectral_norm(self.shape)
        with working_precision(PRECISION_BITS):
            # `moves.bound` is one valid Lambda: both its uses take that very number.
            axis = ball(eps) * log_ball(longest).exp() / self.moves.bound.log.exp()
            reach = (2 * ball(self.radius) + axis).log()
            each = dim * (reach + self.bound.log - log_ball(eps))
            total = prompt_tokens * each
        # One point covers what a cell as large as the ball covers: a count is at least 1.
        return LogBound(
            direction="upper",
            log=total if total > 0 else arb(0),
            quantity=f"cells that cover all prompts of {prompt_tokens} tokens of {dim} numbers",
            source=_SOURCE,
            assumptions=self.bound.assumptions,
            factors=(self.bound,),
        )


def effective_lipschitz(
    weights: TransformerWeights,
    *,
    radius: Exact,
    prompt_only: bool = True,
    effort: Effort = "full",
    shape: Array | None = None,
) -> EffectiveLipschitz:
    """Search for the cell shape E that needs the fewest cells, and prove its L_eff."""
    require_radius(radius)
    if shape is not None:
        _require_triangular(shape, weights.dim)
    found = search_choices(
        weights,
        radius=near_float(radius),
        prompt_only=prompt_only,
        effort=effort,
        shape="search" if shape is None else shape,
    )
    moves = certify_choices(
        weights, radius=radius, prompt_only=prompt_only, choices=found.choices, shape=found.shape
    )
    cell = found.shape
    with working_precision(PRECISION_BITS):
        log_volume = sum((log_ball(Fraction(float(entry))) for entry in np.diag(cell)), arb(0))
        log = moves.bound.log - log_volume / weights.dim
    bound = LogBound(
        direction="upper",
        log=log,
        quantity="effective Lipschitz constant of covering by ellipsoids, token norm",
        source=_SOURCE,
        assumptions=moves.bound.assumptions,
        factors=(moves.bound,),
    )
    return EffectiveLipschitz(bound=bound, shape=cell, moves=moves, radius=Fraction(radius))


def _require_triangular(shape: Array, dim: int) -> None:
    """The determinant of a triangular matrix is exact."""
    given = np.asarray(shape)
    right = given.shape == (dim, dim) and given.dtype == np.float64
    if not right or np.triu(given, 1).any() or not (np.diag(given) > 0).all():
        raise UserError(
            "shape",
            "be a lower triangular float64 matrix with a diagonal above 0",
            got=f"an array of shape {given.shape}",
            remedy="take the Cholesky factor of E E^T",
        )
    if not all(map(math.isfinite, given.ravel())):
        raise UserError("shape", "be finite", got="NaN or infinity", remedy="rescale it")
