"""Verify washout certificates (Theorem W): how little a query matters behind a long prompt.

This shares no code with what wrote the certificate (`promptlimits.theory.washout`, where the
theorem is stated and proved). The recorded logarithm of E must be the grid point just above
what its inputs give, recomputed in decimal intervals: no digit can be altered.
"""

from __future__ import annotations

from typing import Any, Final

from promptlimits.checking.grid import decades, require_grid_log
from promptlimits.checking.intervals import Interval
from promptlimits.checking.layer_limits import Layer, read_layers
from promptlimits.checking.record import (
    long_integer,
    open_certificate,
    reading,
    require_assumptions,
    require_same,
    require_source,
    whole,
)

_TEXTS: Final = (
    (
        "Every token that enters a layer, of the prompt or of either query, has norm at most the "
        "given radius, and each layer has the given limits."
    ),
    (
        "Both queries have the given number of tokens at most, end with the same token, and follow "
        "the same prompt of the given length."
    ),
)


def check(certificate: Any) -> str:
    """Verify a washout certificate."""
    with reading("washout"):
        inputs, bound = open_certificate(
            certificate, kind="washout", inputs={"layers", "query_tokens", "prompt_tokens"}
        )
        layers = read_layers(inputs["layers"])
        query_tokens = whole(inputs["query_tokens"], 2)
        prompt_tokens = long_integer(inputs["prompt_tokens"], 1)
        require_source(
            bound,
            reference="promptlimits",
            statement="Theorem W (promptlimits.theory.washout)",
            form="proved here",
        )
        require_assumptions(bound, _TEXTS, holds=(None,) * len(_TEXTS))
        quantity = f"difference of the last token's outputs after layer {len(layers)}"
        require_same(
            (bound.quantity, bound.direction, bound.factors), (quantity, "upper", ()), "the bound"
        )
        require_grid_log(
            bound.log,
            lambda digits: _difference(layers, query_tokens, prompt_tokens, digits).log(),
            what="E",
        )
    return (
        f"Theorem W: behind {prompt_tokens:,} prompt tokens, two queries of {query_tokens} tokens "
        f"that end alike have last outputs within E = {decades(bound.log)} "
        f"after {len(layers)} layers; answers further apart than E + 2 eps cannot be kept within "
        "eps; under the assumptions that it states"
    )


def _difference(
    layers: list[Layer], query_tokens: int, prompt_tokens: int, digits: int
) -> Interval:
    """E of the last layer, from the recursion over layers."""
    error = Interval.of(0, digits)
    for layer in layers:
        total = error
        for value_norm, score_norm in layer.heads:
            steep = 2 * score_norm * layer.radius**2
            others = Interval.of(steep, digits).exp() * (query_tokens - 1)
            mass = others / (others + (prompt_tokens + 1))
            change = error * (1 + steep) + mass * (4 * layer.radius)
            total += change.minimum(2 * layer.radius) * value_norm
        error = total * layer.mlp
    return error
