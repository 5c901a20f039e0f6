"""Proved lower limits on the oracle's f over many boxes at once.

**Second order.** Let c be a box's centre, N(v) the normal matrix of W, and w(v) = w_0 + D x the
first-order minimiser, any floats. As W* minimises, for every v

    f(v) = |q(v)|^2 - e(v)^T N(v)^-1 e(v),      q = residuals at w(v),  e = S(v)^T q(v),

since q(v) = r(v) + S (W* - w) with r orthogonal to the range of S. The residuals are known
exactly (`problem`): q(v) = q_0 + J x + Gamma, Gamma = sum_il s mu(v) T_il x_i x_l. So

    |q|^2 >= p_0 + 2 slope.x + x.(J^T J + 2 K(v)) x - 2 |J x| |Gamma| + |Gamma|^2,
    K_il = sum_j s mu(v) <q_0, T_il>,

and e(v) = S(v)^T Gamma + e_0 + E x + rest(v), where e_0 and E would be 0 without rounding and
rest is of second order, linear in W's own reach:

    rest_i = B_i^T sum_j c ( s^2 m^2 mu(v) x_i^2 q_0 - s m mu(v) x_i J x ).

If C^T N(v) C differs from I by at most eta < 1 over the box, then e^T N^-1 e <= (|Gamma| + eps)^2
with eps = (|C^T e_0| + |C^T E x| + ||C|| |rest|) / sqrt(1 - eta), and the two |Gamma|^2 cancel:

    f(v) >= p_0 + 2 slope.x + x.(J^T J + 2K) x - 2 |J x||Gamma| - 2 eps |Gamma| - eps^2.

The quadratic is f's own Taylor polynomial, so the limit is off by O(size^3) only; it is minimised
over the box by a tangent to its convex part, which needs no bound on |W| anywhere.

**Where heads degenerate** (eta >= 1) the term M W is still a matrix of rank at most h, one of
whose columns is a multiple of mu^1: by Eckart and Young f is at least the tail of the singular
values of (I - mu^1 mu^1^T / |mu^1|^2) G from the h-th on, which is 1-Lipschitz in G.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptlimits.lab.one_layer.oracle.cone import cone_floor, free_pair, near_corner
from promptlimits.lab.one_layer.oracle.parts import Part
from promptlimits.lab.one_layer.oracle.problem import LocalModel, local_model
from promptlimits.lab.one_layer.setting import Floats
from promptlimits.lipschitz.balls.entries import UNIT, Balls, add_up, multiply_up, sum_up


@dataclass(frozen=True, kw_only=True, eq=False)
class _Quadratic:
    """f(c + x) >= value + 2 slope.x + x.curvature.x - loss for |x_i| <= half_i.

    Where `known` is false only `floor` is a limit. `bend` (N, h) says how much each side of a
    box adds to the loss: which one to cut.
    """

    value: Floats
    slope: Balls
    curvature: Balls
    loss: Floats
    floor: Floats
    known: NDArray[np.bool_]
    bend: Floats


def box_limits(parts: list[Part], low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Lower limits on f over boxes, and along which side to halve each."""
    with np.errstate(over="ignore", invalid="ignore"):
        # What overflows or is indeterminate proves nothing, and is treated so where it is used.
        return _box_limits(parts, low, high)


def _box_limits(parts: list[Part], low: Floats, high: Floats) -> tuple[Floats, Floats]:
    centre, half = (low + high) / 2, (high - low) / 2
    each = [_quadratic(part, centre, half) for part in parts]
    if not each:
        return np.zeros(len(low)), half
    total = _sum(each)
    smooth = _least(total, half)
    floor = each[0].floor
    for one in each[1:]:
        floor = np.nextafter(floor + one.floor, -np.inf)
    best = np.maximum(np.where(np.isfinite(smooth), smooth, 0.0), np.maximum(floor, 0.0))
    bend = sum((one.bend for one in each), np.zeros(half.shape))
    return best, bend


def _sum(each: list[_Quadratic]) -> _Quadratic:
    """The sum, in which an unknown part counts as its constant floor."""
    value, loss = np.zeros(len(each[0].value)), np.zeros(len(each[0].value))
    slope, curvature = None, None
    for one in each:
        known = one.known
        value = np.nextafter(value + np.where(known, one.value, one.floor), -np.inf)
        loss = add_up(loss, np.where(known, one.loss, 0.0))
        here = _masked(one.slope, known), _masked(one.curvature, known)
        slope = here[0] if slope is None else slope + here[0]
        curvature = here[1] if curvature is None else curvature + here[1]
    first = each[0]
    return _Quadratic(
        value=value,
        slope=first.slope if slope is None else slope,
        curvature=first.curvature if curvature is None else curvature,
        loss=loss,
        floor=first.floor,
        known=first.known,
        bend=first.bend,
    )


def _masked(balls: Balls, known: np.ndarray) -> Balls:
    mask = known.reshape(-1, *[1] * (balls.mid.ndim - 1))
    return Balls(np.where(mask, balls.mid, 0.0), np.where(mask, balls.rad, 0.0))


def _least(form: _Quadratic, half: Floats) -> Floats:
    """A lower limit on a quadratic over |x_i| <= half_i, by a tangent to its convex part."""
    middle = (form.curvature.mid + form.curvature.mid.swapaxes(1, 2)) / 2
    sizes, vectors = np.linalg.eigh(np.nan_to_num(middle, posinf=0.0, neginf=0.0))
    # U diag(lambda_+) U^T is positive semidefinite whatever floats U holds.
    root = vectors * np.sqrt(np.maximum(sizes, 0.0))[:, None, :]
    convex = Balls.exact(root) @ Balls.exact(root).swap(1, 2)
    rest = (form.curvature - convex).magnitude()
    at = _box_minimiser(form.slope.mid, convex.mid, half)
    pull = (convex @ Balls.exact(at[..., None]))[..., 0]
    tilt = (form.slope + pull).magnitude()
    lost = add_up(
        2 * _total(multiply_up(tilt, half)),
        _total(multiply_up(rest, half[:, :, None], half[:, None, :])),
        (Balls.exact(at) * pull).sum(1).upper(),
        form.loss,
    )
    return np.nextafter(form.value - lost, -np.inf)


def _total(terms: Floats) -> Floats:
    """At or above the sum of all terms of each box."""
    return sum_up(terms, tuple(range(1, terms.ndim)))


def _box_minimiser(slope: Floats, convex: Floats, half: Floats) -> Floats:
    """Roughly where 2 slope.x + x.convex.x is least in the box; any point is sound."""
    at = np.zeros(slope.shape)
    for _ in range(12):
        for i in range(slope.shape[1]):
            own = convex[:, i, i]
            others = slope[:, i] + (convex[:, i] * at).sum(axis=1) - own * at[:, i]
            flat = own <= 1e-14 * np.abs(convex).max(axis=(1, 2))
            far = -np.sign(others) * half[:, i]
            ideal = np.where(flat, far, -others / np.where(flat, 1.0, own))
            at[:, i] = np.clip(ideal, -half[:, i], half[:, i])
    return at


def _quadratic(part: Part, centre: Floats, half: Floats) -> _Quadratic:
    near = local_model(part.near, centre)
    excess = part.excess[None]
    whole = Balls.around(centre, half)[:, None]
    middle = Balls.exact(centre)[:, None]
    one = Balls.exact(np.ones(1))
    share = (one + excess * middle).reciprocal()
    share_all = (one + excess * whole).reciprocal()
    # s mu(v): what turns first-order changes into those of second order.
    steep = excess * share_all
    carried = Balls.exact(part.scale[:, None])[None] * share
    held = _spread(part, near.solution)[:, None]
    residual, own = _residual(part, excess, middle, share, carried, held)
    turned = _turned(part, near, carried, own)
    change = -turned.sum(2)
    boxes, heads = half.shape
    flat_change = change.swap(1, 2).reshape(boxes, heads, -1)
    flat_residual = residual.reshape(boxes, -1, 1)
    bent = _bent(residual, turned, steep)
    gamma = (steep[..., None, None] * turned).norm_upper((1, 4))
    curve = _total(multiply_up(gamma, half[:, :, None], half[:, None, :]))
    move = _total(multiply_up(change.norm_upper((1, 3)), half))
    slack = _slack(part, near, (carried, share, steep), (residual, change), half)
    value = (residual * residual).sum(2).sum(1)
    known = np.isfinite(slack) & near.regular
    floor = _eckart(part, excess, middle, half, share, share_all)
    if free_pair(part):
        odd = near_corner(part, centre, half)
        floor[odd] = np.maximum(floor[odd], cone_floor(part, centre[odd], half[odd]))
    return _Quadratic(
        value=value.lower(),
        slope=(flat_change @ flat_residual)[..., 0],
        curvature=flat_change @ flat_change.swap(1, 2) + bent + bent.swap(1, 2),
        loss=add_up(
            2 * multiply_up(move, curve), 2 * multiply_up(slack, curve), multiply_up(slack, slack)
        ),
        floor=floor,
        known=known,
        bend=_bend(half, gamma, move, slack, steep),
    )


def _bend(half: Floats, gamma: Floats, move: Floats, slack: Floats, steep: Balls) -> Floats:
    """How much each side contributes to the loss; by steepness alone where that is infinite."""
    finite = np.isfinite(slack)
    size = np.where(finite, move + slack, 0.0)
    loss = half * half * (gamma.sum(axis=1) + gamma.sum(axis=2)) * size[:, None]
    steepest = half * (1e-9 + steep.magnitude().max(axis=1))
    return np.asarray(np.where(finite[:, None], loss + 1e-9 * steepest, steepest))


def _spread(part: Part, coordinates: Floats) -> Balls:
    """B_i w^i in balls from floats (..., n): (..., h, m)."""
    blocks = part.near.blocks
    pieces = [
        Balls.exact(np.ascontiguousarray(coordinates[..., blocks == i])) @ basis.swap(0, 1)
        for i, basis in enumerate(part.bases)
    ]
    return Balls.stack(pieces, -2)


def _gather(part: Part, vectors: Balls) -> Balls:
    """B_i^T y^i from (..., h, m): (..., n)."""
    return Balls.join([vectors[..., i, :] @ basis for i, basis in enumerate(part.bases)], -1)


def _residual(
    part: Part, excess: Balls, middle: Balls, share: Balls, carried: Balls, held: Balls
) -> tuple[Balls, Balls]:
    """q_0, (N, k, m), and the derivative of each head's term in its own v_i, (N, k, h, m)."""
    grown = Balls.exact(np.ones(1)) + excess
    own_share = grown * middle * share
    terms = own_share[..., None] * part.means[None] + carried[..., None] * held
    bent = (Balls.exact(part.scale[:, None])[None] * excess)[..., None] * held
    own = (share * share)[..., None] * (grown[..., None] * part.means[None] - bent)
    return part.targets[None] - terms.sum(2), own


def _turned(part: Part, near: LocalModel, carried: Balls, own: Balls) -> Balls:
    """T_il, (N, k, h, h, m)."""
    moved = _spread(part, near.motion).swap(1, 2)[:, None]
    turned = carried[..., None, None] * moved
    for i in range(turned.shape[2]):
        turned = turned.added_at(np.s_[:, :, i, i], own[:, :, i])
    return turned


def _bent(residual: Balls, turned: Balls, steep: Balls) -> Balls:
    """K_il over the box."""
    inner = (turned * residual[:, :, None, None]).sum(4)
    return (inner * steep[..., None]).sum(1)


def _slack(
    part: Part,
    near: LocalModel,
    shares: tuple[Balls, Balls, Balls],
    terms: tuple[Balls, Balls],
    half: Floats,
) -> Floats:
    """eps, infinite where the normal matrix is not proved regular over the box."""
    carried, share, steep = shares
    residual, change = terms
    steeper = steep * carried  # c s m mu(v)
    here = part.excess[None] * share * carried  # c s m^2
    exact = _pull(carried, residual)
    linear = _pull_each(carried, change)
    cut = _pull(here, residual)
    for i in range(linear.shape[1]):
        linear = linear.added_at(np.s_[:, i, i], -cut[:, i])
    whitening = Balls.exact(near.whitening)
    e_0 = (_gather(part, exact)[:, None] @ whitening).norm_upper((1, 2))
    e_1 = (_gather(part, linear) @ whitening).norm_upper((2,))
    first = _pull_each(steeper, change).norm_upper((3,))  # (N, l, i)
    second = _pull(here * steep, residual).norm_upper((2,))
    sides = half[:, :, None] * half[:, None, :]
    beyond = add_up(sum_up(multiply_up(first, sides), 1), multiply_up(second, half, half))
    length = _total(multiply_up(beyond, beyond))
    sizes = _head_norms(part, near)
    drift = multiply_up((carried * steep).norm_upper((1,)), half, sizes)
    left = _regularity(part, near, share, _total(drift))
    long = multiply_up(_total(multiply_up(sizes, sizes)), length)
    whole = add_up(e_0, _total(multiply_up(e_1, half)), _up_root(long))
    eps = multiply_up(whole, 1 / np.where(left > 0, left, np.nan), np.float64(1 + 64 * UNIT))
    return np.where(np.isfinite(eps), eps, np.inf)


def _pull(weights: Balls, residual: Balls) -> Balls:
    """sum_j weight_ji q_j: (N, h, m) from (N, k, h) and (N, k, m)."""
    return weights.swap(1, 2) @ residual


def _pull_each(weights: Balls, change: Balls) -> Balls:
    """sum_j weight_ji J_l: (N, l, i, m) from (N, k, h) and (N, k, l, m)."""
    return weights.swap(1, 2)[:, None] @ change.swap(1, 2)


def _up_root(squares: Floats) -> Floats:
    return multiply_up(np.sqrt(squares), np.float64(1 + 64 * UNIT))


def _head_norms(part: Part, near: LocalModel) -> Floats:
    """At or above ||C_i||, the rows of C that belong to each head, (N, h).

    For symmetric M >= 0, ||M|| <= sqrt(largest row sum of |M^2|), and M = C_i C_i^T.
    """
    norms = []
    for i in range(part.near.heads):
        rows = Balls.exact(np.ascontiguousarray(near.whitening[:, part.near.blocks == i]))
        normal = rows @ rows.swap(1, 2)
        square = (normal @ normal).magnitude()
        norms.append(_up_root(_up_root(sum_up(square).max(axis=1, initial=0.0))))
    return np.stack(norms, axis=1)


def _regularity(part: Part, near: LocalModel, share: Balls, drift: Floats) -> Floats:
    """A lower limit on the least singular value of S(v) C over the box.

    At the centre C^T N C is I up to eta, and S(v) C moves by no more than `drift`, as
    mu(v) - m = -s m mu(v) x and each B_i is orthonormal.
    """
    carried = Balls.exact(part.scale[:, None])[None] * share
    products = carried.swap(1, 2) @ carried
    blocks = part.near.blocks
    joined = Balls.join(part.bases, 1)
    normal = products[:, blocks[:, None], blocks] * (joined.swap(0, 1) @ joined)[None]
    whitening = Balls.exact(near.whitening)
    turned = whitening.swap(1, 2) @ normal @ whitening
    away = (turned - Balls.exact(np.eye(turned.shape[-1]))).norm_upper((1, 2))
    # sqrt(1 - eta) >= 1 - eta for eta in [0, 1]; NaN and infinity fall out as 0.
    left = np.nextafter(1 - add_up(away, drift), 0.0)
    return np.where(np.isfinite(left), np.maximum(left, 0.0), 0.0)


def _eckart(
    part: Part, excess: Balls, middle: Balls, half: Floats, share: Balls, share_all: Balls
) -> Floats:
    """The floor that holds for terms of rank h, or 0 where k <= h."""
    queries, heads = part.excess.shape
    if queries <= heads:
        return np.zeros(len(half))
    move = Balls.around(np.zeros(half.shape), half)[:, None]
    grown = (Balls.exact(np.ones(1)) + excess) * share
    shift = share_all * move
    at = grown * middle
    scale = Balls.exact(part.scale[:, None])[None]
    best = np.zeros(len(half))
    for head in range(heads):
        here = _projected(part, at, scale * share, head)
        there = _projected(part, at + grown * shift, scale * (share - excess * share * shift), head)
        away = (there - Balls.exact(here.mid)).norm_upper((1, 2))
        tail = np.nextafter(np.sqrt(_tail(here.mid, heads - 1)), 0.0)
        floor = np.maximum(np.nextafter(tail - away, 0.0), 0.0)
        floor = np.where(np.isfinite(floor), floor, 0.0)
        best = np.maximum(best, np.maximum(np.nextafter(floor * floor, 0.0), 0.0))
    return best


def _projected(part: Part, own: Balls, carried: Balls, head: int) -> Balls:
    """(I - mu mu^T / |mu|^2) G with the mu of one head, (N, k, m)."""
    fixed = part.targets[None] - (own[..., None] * part.means[None]).sum(2)
    direction = carried[:, :, head]
    size = (direction * direction).sum(1).reciprocal()
    along = direction[:, None] @ fixed
    return fixed - (direction * size[:, None])[..., None] * along


def _tail(matrices: Floats, dropped: int) -> Floats:
    """A lower limit on the sum of squares of all but the largest `dropped` singular values."""
    exact = Balls.exact(matrices)
    normal = exact @ exact.swap(1, 2)
    sizes, vectors = np.linalg.eigh(np.nan_to_num(normal.mid, posinf=0.0, neginf=0.0))
    frame = Balls.exact(vectors)
    rebuilt = Balls.exact(vectors * sizes[:, None, :])
    # vectors * sizes is rounded entry by entry, each by at most u times itself.
    rebuilt = Balls(rebuilt.mid, np.abs(rebuilt.mid) * 2 * UNIT)
    off = (normal - rebuilt @ frame.swap(1, 2)).norm_upper((1, 2))
    skew = (frame.swap(1, 2) @ frame - Balls.exact(np.eye(sizes.shape[1]))).norm_upper((1, 2))
    top = sum_up(np.maximum(sizes, 0.0)[:, ::-1][:, :dropped])
    trace = (exact * exact).sum(2).sum(1).lower()
    lost = add_up(multiply_up(top, 1 + skew), dropped * off)
    return np.maximum(np.nextafter(trace - lost, -np.inf), 0.0)
