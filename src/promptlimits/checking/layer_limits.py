"""Limits on layers as certificates record them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from promptlimits.checking.record import exact_fraction, exactly, listed


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: r, Lambda, and (||V_i||, ||A_i||) of each head."""

    radius: Fraction
    mlp: Fraction
    heads: tuple[tuple[Fraction, Fraction], ...]

    @property
    def attention(self) -> Fraction:
        """Lipschitz constant where queries and context move: sum ||V|| (1 + 2 ||A|| r^2)."""
        return sum((v + 2 * v * a * self.radius**2 for v, a in self.heads), Fraction(0))

    @property
    def context(self) -> Fraction:
        """Lipschitz constant where the context alone moves: sum ||V|| (1 + ||A|| r^2)."""
        return sum((v + v * a * self.radius**2 for v, a in self.heads), Fraction(0))


def read_layers(value: Any) -> list[Layer]:
    """The layers of a certificate."""
    layers = []
    for record in listed(value):
        exactly(record, {"radius", "mlp_lipschitz", "heads"}, "layer")
        heads = []
        for head in listed(record["heads"]):
            value_norm, score_norm = (exact_fraction(norm, above=0) for norm in listed(head))
            heads.append((value_norm, score_norm))
        layers.append(
            Layer(
                radius=exact_fraction(record["radius"], above=0),
                mlp=exact_fraction(record["mlp_lipschitz"], above=0),
                heads=tuple(heads),
            )
        )
    if not layers or not all(layer.heads for layer in layers):
        raise ValueError("there is a layer, and each has a head")
    return layers
