"""What is right for a certificate about a model, before its weights are read.

Of a checkpoint's ceiling: that in decimal intervals the recorded log L is what the norms of the
blocks give, by the formulas of `lipschitz.checkpoint.block_bound`, written here anew; that Theorem
1 inside holds and speaks of just this L; that the counting theorem inside is of the same sizes.
The norms are taken as recorded: `weights.prove_norms` proves them again from the weights. An
ellipsoid bound rests on the weights as a whole: here its free numbers are found to be in range.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any, Final

from promptlimits.checker import core
from promptlimits.checker.intervals import Interval, log, real, sqrt

SLOPES: Final = {
    "gelu": Fraction(113, 100),
    "gelu_tanh": Fraction(113, 100),
    "silu": Fraction(11, 10),
    "relu": Fraction(1),
}
"""Upper limits on the slope of each activation."""
_SHARED: Final = ("dim", "prompt_tokens", "tokens", "radius", "eps")


def either(*readers: core.Reader) -> core.Reader:
    """Of one of several forms."""

    def read(value: Any) -> Any:
        for reader in readers[:-1]:
            try:
                return reader(value)
            except ValueError:
                continue
        return readers[-1](value)

    return read


def maybe(reader: core.Reader) -> core.Reader:
    """What it reads, or JSON's null."""
    return lambda value: None if value is None else reader(value)


_LIMIT: Final = core.between(0, closed=True)
_EPS: Final = core.between(0)
_PLAIN: Final = core.record(eps=_EPS)
_GAINED: Final = core.record(eps=_EPS, gain=_LIMIT)


def _limits(*names: str, **more: core.Reader) -> core.Reader:
    """Limits of these names, and more."""
    return core.record(**dict.fromkeys(names, _LIMIT), **more)


def _attention(positions: str, head: core.Reader, **more: core.Reader) -> core.Reader:
    known = {
        "positions": core.one_of(positions),
        "heads": core.items(head),
        "scale_squared": core.between(0),
    }
    return _limits("output", **known, **more)


def _block(arrangements: core.Reader, norm: core.Reader, **more: core.Reader) -> core.Reader:
    return core.record(
        arrangement=arrangements,
        attention_norm=norm,
        feed_forward_norm=norm,
        attention=_ATTENTION,
        feed_forward=_FEED_FORWARD,
        **more,
    )


_HEAD: Final = ("value", "query", "key")
_ATTENTION: Final = either(
    _attention("added", _limits("value", "logit", "logit_bias")),
    _attention("rotary", _limits(*_HEAD, "query_bias", "key_bias")),
    _attention(
        "normalised", _limits(*_HEAD), head_dim=core.whole(1), query_norm=_GAINED, key_norm=_GAINED
    ),
)
_FEED_FORWARD: Final = either(
    _limits("up", "down", activation=core.one_of(*SLOPES)),
    _limits("up", "gate", "down_up", "down_gate", activation=core.one_of(*SLOPES)),
)
_BLOCK: Final = either(
    _block(core.one_of("pre", "parallel"), _PLAIN),
    _block(core.one_of("pre"), _PLAIN, attention_post_norm=_GAINED, feed_forward_post_norm=_GAINED),
    _block(core.one_of("post"), _GAINED),
)
_SHA256: Final = core.only(
    lambda value: type(value) is str and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "no hash of 64 digits",
)
_unread: Final = core.only(lambda value: type(value) is dict, "no inputs of a theorem")


@core.kind(
    weights_sha256=_SHA256,
    dim=core.whole(1),
    least_deviation=_LIMIT,
    outer_norm=_GAINED,
    blocks=core.items(_BLOCK, most=core.MOST_PARTS),
    prompt_capacity=_unread,
    vector_counting=_unread,
)
def model_ceiling(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """log L, and what two theorems make of it, whose own functions read their inputs."""
    if len({block.arrangement == "post" for block in i.blocks}) > 1:
        raise ValueError("some blocks normalise what they take and others what they give")
    constant = core.grid_up(lambda: log(_Composition(i).constant() + Fraction(1, 2**1000)))
    inside = {"prompt_capacity": i.prompt_capacity, "vector_counting": i.vector_counting}
    given = {name: value.get(name) for name in inside}
    for name, inputs in inside.items():
        core.check({"schema": core.SCHEMA, "kind": name, "inputs": inputs, "value": given[name]})
    net, counted = inside.values()
    if {key: net[key] for key in _SHARED} != {key: counted[key] for key in _SHARED}:
        raise core.Refuted("the two theorems are of other sizes")
    lipschitz, deviation = net["lipschitz"], core.exact(net["least_deviation"])
    exponent = core.exact(lipschitz["exp"]) if isinstance(lipschitz, dict) else None
    if exponent != Fraction(constant, 2**core.GRID_BITS):
        raise core.Refuted("the Lipschitz constant of Theorem 1 is not the model's")
    if (net["dim"], net["norm"], deviation) != (i.dim, "token", i.least_deviation):
        raise core.Refuted("the width, norm or region of Theorem 1 is not the model's")
    return {"log_lipschitz": constant, **given}


def _float(value: Any) -> float:
    """A finite double in hexadecimal, in its one form."""
    number = float.fromhex(value) if type(value) is str else math.nan
    if not math.isfinite(number) or number.hex() != value:
        raise ValueError(f"{value!r:.50} is no finite double in its one form")
    return number


_positive: Final = core.only(
    lambda number: number > 0, "not above 0", of=lambda value: Fraction(_float(value))
)
_SOME: Final = core.items(_positive, least=0)
_STEP: Final = core.record(own=_positive, heads=core.items(_positive), turns=_SOME, reaches=_SOME)
_LAYER: Final = core.record(
    lengths=core.items(_positive), tokens=_STEP, change=_STEP, query=maybe(_STEP)
)


@core.kind(
    weights_sha256=_SHA256,
    dim=core.whole(1),
    masked=core.boolean,
    prompt_only=core.boolean,
    radius=core.between(0),
    shape=maybe(core.items(core.items(_float))),
    layers=core.items(_LAYER),
)
def transformer_lipschitz(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Without weights: that the free numbers are in range. `ellipsoid` proves the limit."""
    if i.shape is not None and {len(row) for row in (i.shape, *i.shape)} != {i.dim}:
        raise ValueError("the shape is a square matrix of the width")
    for layer in i.layers:
        heads = len(layer.lengths)
        if (layer.query is not None) is not i.prompt_only:
            raise ValueError("there is a step for queries if, and only if, just the prompt moves")
        for step, turns in ((layer.tokens, 0), (layer.change, heads), (layer.query, heads)):
            if step is None:
                continue
            if (len(step.heads), len(step.turns)) != (heads, turns):
                raise ValueError("each head has its free numbers")
            if step.own + sum(step.heads) > 1:
                raise ValueError("weights add up to at most 1")
    if not core.is_float(value.get("limit"), bits=53, most=2**11):
        raise ValueError("the limit is no number of 53 bits and a power of two")
    return {"limit": value["limit"]}


class _Composition:
    """The formulas of `block_bound` in decimal intervals."""

    def __init__(self, inputs: Any) -> None:
        self._model = inputs

    def least(self, norm: Any) -> Interval:
        """sqrt(eps + S0^2)."""
        return sqrt(real(norm.eps + self._model.least_deviation**2))

    def behind(self, norm: Any) -> Interval:
        """What a norm behind a sublayer multiplies by."""
        return real(1) if norm is None else norm.gain / self.least(norm)

    def constant(self) -> Interval:
        """L."""
        outer = self._model.outer_norm
        post = self._model.blocks[0].arrangement == "post"
        prompt = 1 / self.least(outer) if post else real(1)
        query, gain = real(0), outer.gain if post else Fraction(1)
        for block in self._model.blocks:
            keys, own = self._attention(block.attention)
            first, second = self.least(block.attention_norm), self.least(block.feed_forward_norm)
            turn = self.behind(getattr(block, "attention_post_norm", None)) / first
            fed = self.behind(getattr(block, "feed_forward_post_norm", None)) / second
            fed *= self._feed_forward(block.feed_forward)
            kept, after = real(1), fed + 1
            if block.arrangement == "parallel":
                kept, after = after, kept
            if block.arrangement == "post":
                kept, after = gain / first, fed + block.attention_norm.gain / second
                gain = block.feed_forward_norm.gain
            query, prompt = [
                (moved * kept + (keys * prompt + own * moved) * turn) * after
                for moved in (query, prompt)
            ]
        return query * gain if post else query * self.behind(outer)

    def _attention(self, facts: Any) -> tuple[Interval, Interval]:
        keys = own = real(0)
        for head in facts.heads:
            one, other = self._head(head, facts)
            keys += (one * head.value) ** 2
            own += (other * head.value) ** 2
        return sqrt(keys) * facts.output, sqrt(own) * facts.output

    def _head(self, head: Any, facts: Any) -> tuple[Interval, Interval]:
        scale, width = sqrt(real(facts.scale_squared)), sqrt(real(self._model.dim))
        if facts.positions == "added":
            largest = (width * head.logit + head.logit_bias) * scale
            return sqrt((largest * width) ** 2 + 1), scale * head.logit * self._model.dim
        longest, lipschitz = {}, {}
        for part in ("query", "key"):
            size = getattr(head, part)
            if facts.positions == "normalised":
                norm = getattr(facts, f"{part}_norm")
                longest[part] = sqrt(real(facts.head_dim)) * norm.gain
                lipschitz[part] = self.behind(norm) * size
            else:
                longest[part] = width * size + getattr(head, f"{part}_bias")
                lipschitz[part] = real(size)
        unit = scale * width
        keys = unit * lipschitz["key"] * longest["query"] + 1
        return keys, unit * lipschitz["query"] * longest["key"]

    def _feed_forward(self, facts: Any) -> Interval:
        slope = SLOPES[facts.activation]
        if hasattr(facts, "down"):
            return real(slope * facts.down * facts.up)
        return real(slope * facts.down_up * facts.gate + facts.down_gate * facts.up)
