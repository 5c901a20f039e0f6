"""Verify a checkpoint's ceiling: its Lipschitz constant again from norms, and what follows from it.

Without weights, the norms are taken as recorded and in decimal intervals it checks that

1. the recorded log L is what the norms of the blocks give, rounded up to a multiple of 2^-96, by
   the formulas of `promptlimits.lipschitz.checkpoint.block_bound`, written here anew;
2. Theorem 1's certificate inside holds and speaks of just this L, and the counting certificate
   inside holds, both of the same sizes, radius and eps (`prompt_capacity`, `vector_counting`);
3. words, source and assumptions are those of the theorem; a norm that the formulas do not use is
   not there.

With weights, `model_weights` proves every norm again in ball arithmetic and compares the hash.

**What a forger can do** who computes the digest anew: rename the model; raise a norm together with
all that follows from it, which leaves the claim true and is weaker; and, in a model of one block,
alter a norm that acts on fixed rows alone, of which nothing there is made. The weights settle all.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, Final

from promptlimits.checking import prompt_capacity, vector_counting
from promptlimits.checking.grid import require_grid_log, require_words
from promptlimits.checking.intervals import Interval
from promptlimits.checking.model_facts import ModelClaim, read_model
from promptlimits.checking.record import (
    exact_fraction,
    open_certificate,
    reading,
    require_same,
    text,
)

_SOURCE: Final = (
    "promptlimits",
    "Lipschitz constant of a checkpoint (promptlimits.lipschitz.checkpoint.model_bound)",
    "proved here",
)
_ASSUMPTIONS: Final = (
    (
        "The model computes with real numbers: what its floating-point arithmetic rounds off "
        "is not covered."
    ),
    (
        "Prompt tokens stand in the place of token embeddings, before positions are added; the "
        "rest of the input is fixed, and the tokens that are read belong to it."
    ),
    (
        "Double precision is IEEE 754 with rounding to nearest, and a matrix product is "
        "computed as sums of products, in any order (as BLAS does)."
    ),
)
_INPUTS: Final = {
    "model",
    "weights_sha256",
    "least_deviation",
    "facts",
    "prompt_capacity",
    "vector_counting",
}
_SHARED: Final = ("dim", "prompt_tokens", "tokens", "radius", "eps")
_LOG_10: Final = Fraction(2302585092994045684, 10**18)  # rounded down
_SLOPES: Final = {
    "gelu": Fraction(113, 100),
    "gelu_tanh": Fraction(113, 100),
    "silu": Fraction(11, 10),
    "relu": Fraction(1),
}


def check(
    certificate: Any,
    *,
    weights: Path | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> str:
    """Verify a certificate of the kind "model_ceiling"."""
    with reading("model_ceiling"):
        inputs, bound = open_certificate(certificate, kind="model_ceiling", inputs=_INPUTS)
        name, digest = text(inputs["model"]), text(inputs["weights_sha256"])
        deviation = exact_fraction(inputs["least_deviation"], least=0)
        model = read_model(inputs["facts"])
        capacity, counted = inputs["prompt_capacity"], inputs["vector_counting"]
        of_capacity, of_counted = capacity["inputs"], counted["inputs"]
        recorded = certificate["bound"]["log"]
        shared = {key: (of_capacity[key], of_counted[key]) for key in _SHARED}
        constant, norm = of_capacity["lipschitz"], of_capacity["norm"]
        region = of_capacity["least_deviation"]
    what = f"Lipschitz constant of {model.family} from the prompt to the last hidden state"
    assumptions: tuple[str, ...] = _ASSUMPTIONS
    if deviation > 0:
        assumptions = (*_ASSUMPTIONS, prompt_capacity.trust_region(deviation))
    require_words(bound, quantity=what, source=_SOURCE, assumptions=assumptions)
    require_same(len(bound.factors), 0, "the number of factors")
    with reading("model_ceiling"):
        require_grid_log(bound.log, lambda digits: log_constant(model, deviation, digits), what)
    for key, (one, other) in shared.items():
        require_same(one, other, f"{key} of the two limits")
    require_same(shared["dim"][0], model.dim, "the width")
    require_same(constant, recorded, "the Lipschitz constant of Theorem 1")
    require_same(norm, "token", "the norm")
    require_same(region, inputs["least_deviation"], "the region of Theorem 1")
    said = (prompt_capacity.check(capacity), vector_counting.check(counted))
    if weights is not None:
        from promptlimits.checking.model_weights import prove_norms

        prove_norms(model, weights, digest=digest, on_progress=on_progress)
    size = Fraction(ceil(100 * bound.log / _LOG_10), 100)  # of two decimals, rounded up
    where = ""
    if deviation > 0:
        least = prompt_capacity.shown(deviation)
        where = (
            f"for prompts that keep every deviation in front of a norm at {least} or more on every "
            "input, "
        )
    return (
        f"{where}the map from the prompt to the last hidden state of {name} ({model.family}, "
        f"{len(model.blocks)} blocks) has a Lipschitz constant of at most 10^{float(size):.2f}; "
        f"with it, {said[0]}; and {said[1]}"
    )


class _Composition:
    """The formulas of `block_bound` in decimal intervals."""

    def __init__(self, model: ModelClaim, deviation: Fraction, digits: int) -> None:
        self._model, self._square, self._digits = model, deviation * deviation, digits
        self._width = self.of(model.dim).sqrt()

    def of(self, value: int | Fraction) -> Interval:
        """An interval around an exact number."""
        return Interval.of(value, self._digits)

    def least(self, norm: dict[str, Any]) -> Interval:
        """sqrt(eps + S0^2)."""
        return self.of(norm["eps"] + self._square).sqrt()

    def behind(self, norm: dict[str, Any] | None) -> Interval:
        """What a norm behind a sublayer multiplies by."""
        return self.of(1) if norm is None else self.of(norm["gain"]) / self.least(norm)

    def constant(self) -> Interval:
        """L, and the smallest number that its logarithm is taken of."""
        model = self._model
        entry, final = model.entry_norm, model.final_norm
        prompt = self.of(1) if entry is None else 1 / self.least(entry)
        query, gain = self.of(0), Fraction(1) if entry is None else entry["gain"]
        for block in model.blocks:
            keys, own = self._attention(block["attention"])
            fed = self._feed_forward(block["feed_forward"])
            first = self.least(block["attention_norm"])
            second = self.least(block["feed_forward_norm"])
            if block["arrangement"] == "post":
                after = (self.of(block["attention_norm"]["gain"]) + fed) / second
                query = (query * gain + keys * prompt + own * query) / first * after
                prompt = prompt * (keys + own + gain) / first * after
                gain = block["feed_forward_norm"]["gain"]
                continue
            turn = self.behind(block["attention_post_norm"]) / first
            moved = (keys * prompt + own * query) * turn
            if block["arrangement"] == "parallel":
                beside = fed / second + 1
                query, prompt = query * beside + moved, prompt * (beside + (keys + own) * turn)
                continue
            after = self.behind(block["feed_forward_post_norm"]) * fed / second + 1
            query, prompt = (query + moved) * after, prompt * ((keys + own) * turn + 1) * after
        last = query * gain
        return last if final is None else last * self.behind(final)

    def _attention(self, facts: dict[str, Any]) -> tuple[Interval, Interval]:
        keys = own = self.of(0)
        for head in facts["heads"]:
            one, other = self._head(head, facts)
            keys += (one * head["value"]) ** 2
            own += (other * head["value"]) ** 2
        return keys.sqrt() * facts["output"], own.sqrt() * facts["output"]

    def _head(self, head: dict[str, Any], facts: dict[str, Any]) -> tuple[Interval, Interval]:
        scale, width = self.of(facts["scale_squared"]).sqrt(), self._width
        if not facts["rotary"]:
            largest = (width * head["logit"] + head["logit_bias"]) * scale
            return ((largest * width) ** 2 + 1).sqrt(), scale * head["logit"] * self._model.dim
        turned = {}
        for part in ("query", "key"):
            norm = facts[f"{part}_norm"]
            if norm is None:
                turned[part] = (width * head[part] + head[f"{part}_bias"], self.of(head[part]))
            else:
                size = self.of(facts["head_dim"]).sqrt() * norm["gain"]
                turned[part] = (size, self.behind(norm) * head[part])
        unit = scale * width
        return (
            unit * turned["key"][1] * turned["query"][0] + 1,
            unit * turned["query"][1] * turned["key"][0],
        )

    def _feed_forward(self, facts: dict[str, Any]) -> Interval:
        slope = self.of(_SLOPES[facts["activation"]])
        if facts["gate"] is None:
            return slope * self.of(facts["down"] * facts["up"])
        gated = slope * self.of(facts["down_up"] * facts["gate"])
        return gated + self.of(facts["down_gate"] * facts["up"])


def log_constant(model: ModelClaim, deviation: Fraction, digits: int) -> Interval:
    """The logarithm of the constant that norms give."""
    constant = _Composition(model, deviation, digits).constant()
    return (constant + Fraction(1, 2**1000)).log()
