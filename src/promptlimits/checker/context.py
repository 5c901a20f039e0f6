"""Certificates of Theorems 2a, 2b, 2c and W: what prompts of any length can do.

Free parameters (`choice`, `parts`) need not be the best: any allowed one is sound.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from promptlimits.checker import core
from promptlimits.checker.intervals import Interval, exp, expm1, log, log1p, maximum, minimum, real

_CASE: Final[dict[str, Any]] = {
    "dim": core.whole(1),
    "lipschitz": core.log_of_any_size,
    "radius": core.between(0),
    "eps": core.between(0),
    "order": core.between(1, closed=True),
}
_CODE: Final[dict[str, Any]] = {
    "delta": core.between(0),
    "alphabet": core.whole(2),
    "theta": core.between(0, 1),
}
_LAYERS: Final = core.items(
    core.record(
        radius=core.between(0),
        mlp_lipschitz=core.between(0),
        heads=core.items(core.items(core.between(0), least=2, most=2), most=core.MOST_PARTS),
    ),
    most=core.MOST_PARTS,
)
_NEGLIGIBLE: Final = -1000
"""Where e^z is added to 1 a z below this is replaced by it: larger, and still nothing."""


@core.kind(
    **_CASE,
    cover=core.one_of("volume", "rogers"),
    choice=core.record(**_CODE, cover_share=core.between(0, 1), list_size=core.whole(1)),
)
def whole_output_capacity(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """K = log C_in/H, log C_in = (1 + D) (1 + log(1 + (2r/ew)^q/4))."""
    if i.cover == "rogers" and i.dim < 3:
        raise ValueError("Rogers' cover needs dimension 3 or more")

    def contexts() -> Any:
        wide, share = _log_ratio(i, 2 * i.radius), i.choice.cover_share
        near = wide - log(share)
        if i.cover == "rogers":
            size = log(i.dim)
            centres = log((size + log(size) + 5) * i.dim) + core.log1p_exp(near - log(2)) * i.dim
        else:
            centres = core.log1p_exp(near) * i.dim
        moved = (wide - log(1 - share)) * i.order - log(4)
        return centres + core.log1p_exp(-centres) + log(1 + core.log1p_exp(moved))

    targets = _targets(i, value, i.choice.list_size)
    log_contexts = core.grid_up(contexts)
    threshold = log_contexts - targets["log_nats"]
    return targets | {"log_contexts": log_contexts, "log_threshold": threshold}


@core.kind(**_CASE, tokens=core.whole(1), spread=core.between(0), choice=core.record(**_CODE))
def short_prompt_capacity(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """K = 1 + log(1 + (M + 1) (1 + 2Lr/delta)^(dM) e^-H)/H, 1 if M = 0."""
    found = _targets(i, value, 1)

    def threshold() -> Interval:
        longer = expm1(_log_ratio(i, i.spread / 2) * i.order)
        if longer.high <= 0:
            return real(0)
        longest, nats = longer * i.tokens, exp(real(Fraction(found["log_nats"], 2**core.GRID_BITS)))
        net = core.log1p_exp(_log_ratio(i, 2 * i.radius))
        excess = log1p(longest) + longest * net * i.dim - nats
        small = log1p(exp(maximum(minimum(excess, -excess), _NEGLIGIBLE)))
        return log1p((maximum(excess, 0) + small) / nats)

    return found | {"log_threshold": core.grid_up(threshold)}


@core.kind(
    dim=core.whole(1),
    layers=_LAYERS,
    tokens=core.whole(1),
    target_radius=core.between(0),
    eps=core.between(0),
    parts=core.items(core.between(0), least=3, most=3),
)
def last_tokens_capacity(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """S, and K from n = (S/delta_1)^2 + 1 atoms in nets of 1 + 2 r_l/eta_l and the classes."""
    reach, depth = i.eps + sum(i.parts), len(i.layers)
    if reach >= i.target_radius:
        raise ValueError("eps + delta is not below the radius")

    def sums() -> tuple[Interval, Interval]:
        """S, and the sum of log(1 + 2 r_l/eta_l), from the last layer to the first."""
        spread, nets, above = real(0), real(0), real(1)
        for layer in reversed(i.layers):
            radius, own, context = real(layer.radius), real(1), real(0)
            gain = above * layer.mlp_lipschitz
            for value_norm, score_norm in layer.heads:
                power = radius * radius * score_norm
                own += (power * 2 + 1) * value_norm
                context += (power + 1) * value_norm
                spread += exp(power * 2) * gain * radius * 2 * value_norm
            nets += log(gain * radius * context * (2 * depth) / i.parts[1] + 1)
            above = gain * own
        return spread, nets

    def threshold() -> Interval:
        spread, nets = sums()
        atoms = (spread / i.parts[0]) ** 2 + 1
        classes = log(spread / i.parts[2] * i.tokens + 2)
        nats = atoms * nets + classes / i.dim
        return log(nats) - log(i.tokens) - log(log(i.target_radius / reach))

    return {
        "log_spread": core.grid_up(lambda: log(sums()[0])),
        "log_threshold": core.grid_up(threshold),
    }


@core.kind(layers=_LAYERS, query_tokens=core.whole(2), prompt_tokens=core.count(1))
def washout(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """E, layer by layer."""

    def difference() -> Interval:
        error = real(0)
        for layer in i.layers:
            total = error
            for value_norm, score_norm in layer.heads:
                steep = real(layer.radius) ** 2 * score_norm * 2
                others = exp(steep) * (i.query_tokens - 1)
                mass = others / (others + (i.prompt_tokens + 1))
                change = error * (1 + steep) + mass * (4 * layer.radius)
                total += minimum(change, 2 * layer.radius) * value_norm
            error = total * layer.mlp_lipschitz
        return log(error)

    return {"log_difference": core.grid_up(difference)}


def _log_ratio(i: Any, size: Fraction) -> Any:
    """log(L size/delta)."""
    return i.lipschitz() + log(size / (i.choice.delta * i.radius))


def _targets(i: Any, value: dict[str, Any], near: int) -> dict[str, Any]:
    """n = floor(ceil((r/s)^d)/A) blocks, log (r/s)^d, and log H, of the family of targets."""
    theta, size = i.choice.theta, i.choice.alphabet
    if theta >= 1 - Fraction(near, size):
        raise ValueError("theta is not below 1 - kappa/A")

    def points() -> Any:
        spacing = log(2 + Fraction(2, near)) / 2 - log(theta) / i.order
        return (log(i.radius / (i.eps + i.choice.delta * i.radius)) - spacing) * i.dim

    def holds(blocks: int) -> bool:
        return core.negative(lambda: log(blocks * size - 1) - points())

    def nats() -> Any:
        kept = 1 - theta
        rate = log(kept * size / near) * kept + log(theta * size / (size - near)) * theta
        if blocks is not None:
            return log(rate) + log(blocks)
        x = points()
        return x + log1p(exp(-x) * (1 - size)) - log(size) + log(rate)

    blocks = value.get("blocks")
    truth: Any = None if core.negative(lambda: log(2) * 64 - points()) else core.Last(holds)
    if truth != blocks or blocks == 0:
        raise core.Refuted(f"blocks is not {blocks!r:.50}")
    return {"blocks": truth, "log_points": _grid_down(points), "log_nats": _grid_down(nats)}


def _grid_down(evaluate: Callable[[], Interval]) -> int:
    return -core.grid_up(lambda: -evaluate())
