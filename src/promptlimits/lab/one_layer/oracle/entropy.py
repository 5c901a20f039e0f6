"""What entropy forbids a head whose values determine its scores, in ball arithmetic.

**Statement** (section 4(b) of the corrected theory of [@meyer2025]; `oracle_length` has both
directions). Let h = 1 and V be invertible, eta = V^(-T) c. Every prompt of m_p >= 1 tokens has

    log Z - log m_p  <=  eta.A  <=  log Z.

**Proof.** With scores s_p = c.p and weights w_p = e^(s_p) / Z, eta.A = c.(sum_p w_p p) =
sum_p w_p s_p, so log Z - eta.A = - sum_p w_p log w_p, an entropy of m_p weights. []

In v = Zmin / (Zmin + Z) and W = (1 - v) A, with l = log Zmin, these are

    b(v) - (1 - v) log m_p  <=  eta.W  <=  b(v),     b(v) = (1 - v) (l + log(1 - v) - log v),

a slab for each v. The weighted sum of squares is f(v) + S(v) |W - W*(v)|^2 with
S = sum_j (c_j mu_j)^2, so its least value on the slab is

    f(v) + S(v) e(v)^2 / |eta|^2,    e = how far eta.W*(v) lies outside.

For prompts of any length the left side is void; the empty prompt (v = 1, W = 0) meets the right.
"""

from __future__ import annotations

from dataclasses import dataclass

from flint import arb, arb_mat

from promptlimits.base.exact import working_precision
from promptlimits.lab.one_layer.oracle.inputs import PRECISION, ExactInputs, Vector, dot
from promptlimits.lab.one_layer.oracle.length import score_covector
from promptlimits.lab.one_layer.reachable import value_ranks
from promptlimits.lab.one_layer.setting import SharedQuery, score_vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Slab:
    """The constants of the slab.

    Attributes:
        targets: eta.t_j.
        means: eta.a_j.
        size: |eta|^2.
        log_least: log Zmin.
        room: log m_p, or None for prompts of any length.
        tokens: m_p, or None.
    """

    targets: list[arb]
    means: list[arb]
    size: arb
    log_least: arb
    room: arb | None
    tokens: int | None


def bound_by_entropy(setting: SharedQuery) -> bool:
    """Whether the layer is one for which `slab_of` gives a slab, but for rounding."""
    layer = setting.layer
    return (
        len(layer.heads) == 1
        and setting.front is None
        and setting.rotary_base is None
        and value_ranks(layer)[0] == layer.dim
        and score_covector(setting) is not None
        and bool(score_vectors(setting).any())
    )


def slab_of(setting: SharedQuery, inputs: ExactInputs, tokens: int | None) -> Slab | None:
    """The slab of a layer with one head, if V is exactly invertible and c is not 0."""
    if not bound_by_entropy(setting):
        return None
    with working_precision(PRECISION):
        eta = _covector(setting)
        if eta is None:
            return None
        size = dot(eta, eta)
        if not size > 0:
            return None
        return Slab(
            targets=[dot(eta, target) for target in inputs.targets],
            means=[dot(eta, mean[0]) for mean in inputs.means],
            size=size,
            log_least=inputs.log_least[0],
            room=None if tokens is None else arb(tokens).log(),
            tokens=tokens,
        )


def _covector(setting: SharedQuery) -> Vector | None:
    """Enclosure of eta = V^(-T) W_k^T W_q x_0, or None."""
    head = setting.layer.heads[0]

    def exact(matrix: object) -> arb_mat:
        return arb_mat([[arb(float(x)) for x in row] for row in matrix])  # type: ignore[attr-defined]

    token = arb_mat([[arb(float(x))] for x in setting.token])
    score = exact(head.key).transpose() * (exact(head.query) * token)
    value = exact(head.output) * exact(head.value)
    try:
        solved = value.transpose().solve(score)
    except ZeroDivisionError:
        return None
    entries = [solved[row, 0] for row in range(solved.nrows())]
    return entries if all(entry.is_finite() for entry in entries) else None
