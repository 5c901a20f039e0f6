"""What is right for a certificate about a model, before its weights are read.

A checkpoint's ceiling: its Lipschitz constant again from norms, and what follows from it.

In decimal intervals it is checked that the recorded log L is what the norms of the blocks give,
by the formulas of `lipschitz.checkpoint.block_bound`, written here anew; that Theorem 1 inside
holds and speaks of just this L; and that the counting theorem inside holds for the same sizes.
The norms are taken as recorded: `weights.prove_norms` proves them again from the weights. An
ellipsoid bound rests on the weights as a whole: here its free numbers are found to be in range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from promptlimits.checker.core import (
    GRID_BITS,
    MOST_PARTS,
    SCHEMA,
    Refuted,
    between,
    boolean,
    check,
    exact,
    grid_up,
    is_float,
    items,
    kind,
    one_of,
    record,
    whole,
)
from promptlimits.checker.intervals import Interval, log, real, sqrt

Reader = Callable[[Any], Any]
SLOPES: Final = {
    "gelu": Fraction(113, 100),
    "gelu_tanh": Fraction(113, 100),
    "silu": Fraction(11, 10),
    "relu": Fraction(1),
}
"""Upper limits on the slope of each activation."""
_SHARED: Final = ("dim", "prompt_tokens", "tokens", "radius", "eps")


def either(*readers: Reader) -> Reader:
    """Of one of several forms."""

    def read(value: Any) -> Any:
        for reader in readers[:-1]:
            try:
                return reader(value)
            except ValueError:
                continue
        return readers[-1](value)

    return read


def sha256(value: Any) -> str:
    """A hash in hexadecimal."""
    if type(value) is not str or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError("a hash has 64 digits")
    return value


def maybe(reader: Reader) -> Reader:
    """What it reads, or JSON's null."""
    return lambda value: None if value is None else reader(value)


_LIMIT: Final = between(0, closed=True)
_EPS: Final = between(0)
_PLAIN: Final = record(eps=_EPS)
_GAINED: Final = record(eps=_EPS, gain=_LIMIT)
_SUBLAYER: Final = {"output": _LIMIT, "scale_squared": between(0)}
_TURNED: Final = {"value": _LIMIT, "query": _LIMIT, "key": _LIMIT}
_ATTENTION: Final = either(
    record(
        positions=one_of("added"),
        heads=items(record(value=_LIMIT, logit=_LIMIT, logit_bias=_LIMIT)),
        **_SUBLAYER,
    ),
    record(
        positions=one_of("rotary"),
        heads=items(record(query_bias=_LIMIT, key_bias=_LIMIT, **_TURNED)),
        **_SUBLAYER,
    ),
    record(
        positions=one_of("normalised"),
        heads=items(record(**_TURNED)),
        head_dim=whole(1),
        query_norm=_GAINED,
        key_norm=_GAINED,
        **_SUBLAYER,
    ),
)
_FEED_FORWARD: Final = either(
    record(activation=one_of(*SLOPES), up=_LIMIT, down=_LIMIT),
    record(activation=one_of(*SLOPES), up=_LIMIT, gate=_LIMIT, down_up=_LIMIT, down_gate=_LIMIT),
)
_SUBLAYERS: Final = {"attention": _ATTENTION, "feed_forward": _FEED_FORWARD}
_BEFORE: Final = {"attention_norm": _PLAIN, "feed_forward_norm": _PLAIN}
_BLOCK: Final = either(
    record(arrangement=one_of("pre", "parallel"), **_BEFORE, **_SUBLAYERS),
    record(
        arrangement=one_of("pre"),
        attention_post_norm=_GAINED,
        feed_forward_post_norm=_GAINED,
        **_BEFORE,
        **_SUBLAYERS,
    ),
    record(
        arrangement=one_of("post"),
        attention_norm=_GAINED,
        feed_forward_norm=_GAINED,
        **_SUBLAYERS,
    ),
)
NORMS: Final = {
    "weights_sha256": sha256,
    "dim": whole(1),
    "least_deviation": _LIMIT,
    "outer_norm": _GAINED,
    "blocks": items(_BLOCK, most=MOST_PARTS),
}
"""Inputs that are about the model."""


def _inputs(value: Any) -> dict[str, Any]:
    """The inputs of another theorem, whose own function reads them."""
    if type(value) is not dict:
        raise ValueError("the inputs of a theorem are an object")
    return value


@kind(**NORMS, prompt_capacity=_inputs, vector_counting=_inputs)
def model_ceiling(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """log L, and what two theorems make of it."""
    if len({block.arrangement == "post" for block in i.blocks}) > 1:
        raise ValueError("some blocks normalise what they take and others what they give")
    constant = grid_up(lambda: log(_Composition(i).constant() + Fraction(1, 2**1000)))
    inside = {"prompt_capacity": i.prompt_capacity, "vector_counting": i.vector_counting}
    given = {name: value.get(name) for name in inside}
    for name, inputs in inside.items():
        check({"schema": SCHEMA, "kind": name, "inputs": inputs, "value": given[name]})
    net, counted = inside.values()
    if {key: net[key] for key in _SHARED} != {key: counted[key] for key in _SHARED}:
        raise Refuted("the two theorems are of other sizes")
    lipschitz, deviation = net["lipschitz"], exact(net["least_deviation"])
    exponent = exact(lipschitz["exp"]) if isinstance(lipschitz, dict) else None
    if exponent != Fraction(constant, 2**GRID_BITS):
        raise Refuted("the Lipschitz constant of Theorem 1 is not the model's")
    if (net["dim"], net["norm"], deviation) != (i.dim, "token", i.least_deviation):
        raise Refuted("the width, norm or region of Theorem 1 is not the model's")
    return {"log_lipschitz": constant, **given}


def _float(value: Any) -> float:
    """A finite double in hexadecimal, in its one form."""
    number = float.fromhex(value) if type(value) is str else math.nan
    if not math.isfinite(number) or number.hex() != value:
        raise ValueError(f"{value!r:.50} is no finite double in its one form")
    return number


def _positive(value: Any) -> Fraction:
    number = Fraction(_float(value))
    if number <= 0:
        raise ValueError("free numbers are above 0")
    return number


_SOME: Final = items(_positive, least=0)
_STEP: Final = record(own=_positive, heads=items(_positive), turns=_SOME, reaches=_SOME)
_LAYER: Final = record(lengths=items(_positive), tokens=_STEP, change=_STEP, query=maybe(_STEP))


ELLIPSOIDS: Final = {
    "weights_sha256": sha256,
    "dim": whole(1),
    "masked": boolean,
    "prompt_only": boolean,
    "radius": between(0),
    "shape": maybe(items(items(_float))),
    "layers": items(_LAYER),
}
"""Inputs of an ellipsoid bound, free numbers among them."""


def power_of_two(value: Any) -> Fraction:
    """[m, e] for m 2^e, an m of 53 bits."""
    if not is_float(value, bits=53, most=2**11):
        raise ValueError(f"{value!r:.50} is no number of 53 bits and a power of two")
    number: Fraction = value[0] * Fraction(2) ** value[1]
    return number


@kind(**ELLIPSOIDS)
def transformer_lipschitz(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Without weights: that the free numbers are in range. `ellipsoid` proves the limit."""
    if i.shape is not None and {len(row) for row in (i.shape, *i.shape)} != {i.dim}:
        raise ValueError("the shape is a square matrix of the width")
    for layer in i.layers:
        heads = len(layer.lengths)
        if (layer.query is not None) is not i.prompt_only:
            raise ValueError("there is a step for queries if, and only if, just the prompt moves")
        for step in (layer.tokens, layer.change, layer.query):
            turns = 0 if step is layer.tokens else heads
            if step is None:
                continue
            if (len(step.heads), len(step.turns)) != (heads, turns):
                raise ValueError("each head has its free numbers")
            if step.own + sum(step.heads) > 1:
                raise ValueError("weights add up to at most 1")
    power_of_two(value.get("limit"))
    return {"limit": value["limit"]}


class _Composition:
    """The formulas of `block_bound` in decimal intervals."""

    def __init__(self, inputs: Any) -> None:
        self._model, self._square = inputs, inputs.least_deviation**2
        self._width = sqrt(real(inputs.dim))

    def least(self, norm: Any) -> Interval:
        """sqrt(eps + S0^2)."""
        return sqrt(real(norm.eps + self._square))

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
            fed = self._feed_forward(block.feed_forward)
            first, second = self.least(block.attention_norm), self.least(block.feed_forward_norm)
            if block.arrangement == "post":
                after = (block.attention_norm.gain + fed) / second
                query = (query * gain + keys * prompt + own * query) / first * after
                prompt = prompt * (keys + own + gain) / first * after
                gain = block.feed_forward_norm.gain
                continue
            turn = self.behind(getattr(block, "attention_post_norm", None)) / first
            moved = (keys * prompt + own * query) * turn
            if block.arrangement == "parallel":
                beside = fed / second + 1
                query, prompt = query * beside + moved, prompt * (beside + (keys + own) * turn)
                continue
            after = self.behind(getattr(block, "feed_forward_post_norm", None)) * fed / second + 1
            query, prompt = (query + moved) * after, prompt * ((keys + own) * turn + 1) * after
        return query * gain if post else query * self.behind(outer)

    def _attention(self, facts: Any) -> tuple[Interval, Interval]:
        keys = own = real(0)
        for head in facts.heads:
            one, other = self._head(head, facts)
            keys += (one * head.value) ** 2
            own += (other * head.value) ** 2
        return sqrt(keys) * facts.output, sqrt(own) * facts.output

    def _head(self, head: Any, facts: Any) -> tuple[Interval, Interval]:
        scale, width = sqrt(real(facts.scale_squared)), self._width
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
