"""What one layer contributes to every bound: norms that are proved once and hold at each radius.

**Radii.** Tokens that enter a layer in a ball of radius r leave attention and residual within
r + r M_0, M_0 = max_u sum_h |W_h^T u| (each head averages tokens of the ball), and then
`feedforward` bounds the MLP's output. A bound that keeps r at every layer, as [@meyer2025]
uses Propositions 2.11 and 2.12, is no bound: tokens leave the ball.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from promptlimits.base.bound import PRECISION_BITS, Exact, working_precision
from promptlimits.lipschitz.balls.rounding import ball, upper
from promptlimits.lipschitz.paper.attention import output_limit
from promptlimits.lipschitz.paper.feedforward import FeedForwardNorms, feed_forward_norms
from promptlimits.lipschitz.paper.head_norms import HeadNorms, head_norms
from promptlimits.nets.paper.weights import TransformerWeights


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """Proved norms of the heads and of the MLP of one layer."""

    heads: HeadNorms
    mlp: FeedForwardNorms

    @property
    def free_of_radius(self) -> bool:
        """Whether attention is linear in effect, so that its constant is the same at all radii."""
        pairs = zip(self.heads.value_norms, self.heads.score_norms, strict=True)
        return all(value * score == 0 for value, score in pairs)

    def leaving(self, radius: Exact) -> Fraction:
        """Radius of a ball that holds the tokens that leave the layer."""
        with working_precision(PRECISION_BITS):
            middle = upper(ball(radius) + output_limit(self.heads, radius))
            return upper(self.mlp.output_limit(ball(middle)))


def layer_norms(weights: TransformerWeights) -> tuple[LayerNorms, ...]:
    """Prove the norms of every layer: all that is expensive, and the same at every radius."""
    return tuple(
        LayerNorms(heads=head_norms(layer.heads), mlp=feed_forward_norms(layer))
        for layer in weights.layers
    )


def token_radii(norms: Sequence[LayerNorms], radius: Exact) -> tuple[Fraction, ...]:
    """Radii of the token balls that enter each layer, and of the one that leaves the last."""
    radii = [Fraction(radius)]
    for layer in norms:
        radii.append(layer.leaving(radii[-1]))
    return tuple(radii)
