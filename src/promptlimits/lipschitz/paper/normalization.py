"""LayerNorm and RMSNorm: Lipschitz constants, the trust region, and where outputs lie.

z = Pi x (LayerNorm, Pi removes the mean) or z = x (RMSNorm), sd(x) = |z| / d^(1/2), and

    LN(x) = gamma * z / (sd(x)^2 + eps)^(1/2) + bias        (eps inside the root).

**Everywhere.** Lip <= max|gamma| / eps^(1/2). *Proof.* With s = (sd^2 + eps)^(1/2) the derivative
of z/s is (I - z z^T/(d s^2))/s, of norm at most 1/s <= eps^(-1/2): 0 <= |z|^2/(d s^2) < 1. []
Attained at z = 0 (d >= 2, for LayerNorm d >= 3 and gamma equal): no smaller constant holds on a
domain that contains it.

**Trust region (Theorem G).** Let s0 >= 0 and t = (s0^2 + eps)^(1/2). The clipped map
gamma * z / max((sd^2 + eps)^(1/2), t) + bias has Lip <= max|gamma|/t, and equals LN where
sd >= s0. *Proof.* Where sd <= s0 it is linear in z with factor 1/t; elsewhere its derivative has
norm at most 1/(sd^2 + eps)^(1/2) <= 1/t; it is continuous, and a segment is cut into finitely
many pieces. [] The region sd >= s0 is not convex, which is why the clipped map is needed: a
statement for LN holds for inputs *all* of whose tokens stay in the region at every
normalisation, and it says so as an assumption. s0 = 0 is the unconditional case.

**Outputs.** |z|/s <= d^(1/2), and on |x| <= r, where |z| <= r and |z|/s grows with |z|,
at most r/(r^2/d + eps)^(1/2). So LN(x) lies within max|gamma| times that of the bias: in the
ellipsoid d diag(gamma) Pi diag(gamma) around it.

*Cost:* linear in d. Source: proved here; Theorem G of the docs. eps and s0 are exact numbers: a
checkpoint's 1e-5 is read from its text, not from a float.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from flint import arb
from numpy.typing import NDArray

from promptlimits.base.bound import (
    PRECISION_BITS,
    Assumption,
    Exact,
    LogBound,
    Source,
    working_precision,
)
from promptlimits.base.errors import UserError
from promptlimits.lipschitz.balls.rounding import ball, least, upper, upper_log_bound
from promptlimits.lipschitz.balls.spectral import vector_norm


def normalization_bound(
    gain: NDArray[np.float64], *, epsilon: Exact, least_deviation: Exact = 0
) -> LogBound:
    """The Lipschitz constant of LayerNorm or RMSNorm, where sd >= s0."""
    largest = Fraction(float(np.abs(gain).max(initial=0.0)))
    with working_precision(PRECISION_BITS):
        limit = ball(largest) / clipping_level(epsilon, least_deviation)
    return upper_log_bound(
        limit,
        quantity="Lipschitz constant of a normalisation",
        source=Source(reference="promptlimits", statement="Theorem G", form="proved here"),
        assumptions=(trust_region(least_deviation),) if least_deviation else (),
    )


def trust_region(least_deviation: Exact) -> Assumption:
    """The assumption that clipping the deviation at s0 rests on."""
    return Assumption(
        text="At every normalisation each token, for every prompt and query considered, has a "
        f"standard deviation (RMSNorm: root mean square) of at least {least_deviation}.",
        holds=None,
    )


def clipping_level(epsilon: Exact, least_deviation: Exact) -> arb:
    """The level (s0^2 + eps)^(1/2), at the current precision."""
    for name, value in (("eps", epsilon), ("the least deviation", least_deviation)):
        if isinstance(value, bool) or not isinstance(value, int | Fraction) or value < 0:
            raise UserError(
                name,
                "be an exact number of at least 0 (an int or a Fraction)",
                got=value,
                remedy="give Fraction('1e-5') rather than 1e-5",
            )
    if epsilon == 0 and least_deviation == 0:
        raise UserError(
            "eps",
            "be above 0 where the deviation has no lower limit",
            got=epsilon,
            remedy="give a least deviation: without one the normalisation has no constant",
        )
    return (ball(least_deviation) ** 2 + ball(epsilon)).sqrt()


def normalized_radius(
    gain: NDArray[np.float64],
    bias: NDArray[np.float64],
    *,
    epsilon: Exact = 0,
    radius: Exact | None = None,
) -> Fraction:
    """Upper limit on the length of a normalised token."""
    largest = Fraction(float(np.abs(gain).max(initial=0.0)))
    with working_precision(PRECISION_BITS):
        length = arb(gain.size).sqrt()
        if radius is not None and radius > 0:
            within = (ball(radius) ** 2 / gain.size + ball(epsilon)).sqrt()
            length = least(length, ball(radius) / within)
        return upper(ball(vector_norm(bias)) + ball(largest) * length)
