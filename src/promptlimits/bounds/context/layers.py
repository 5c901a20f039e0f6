"""What the theorems about contexts of any length need to know of a transformer's layers.

Each layer is x_j -> MLP(x_j + sum_i V_i y_i(x_j)), y_i(x) the mean of the tokens that x attends
to, weighted by exp(y . A_i x): V_i = W_o W_v, A_i = W_k^T W_q. Known are upper limits: r on the
norm of every token that enters, ||V_i||, ||A_i|| (spectral), and the MLP's Lipschitz constant
Lambda (its residual included). All are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from promptlimits.base.errors import UserError
from promptlimits.base.exact import Rule, shown
from promptlimits.bounds.core import Inputs, Positive

_LARGEST_POWER: Final = 50_000
_LARGEST_RADIUS: Final = 10**100


def of_floats(radius: Fraction) -> Fraction:
    """A radius that is not too far from 1 for a search in floats."""
    if not Fraction(1, _LARGEST_RADIUS) <= radius <= _LARGEST_RADIUS:
        raise Rule("be between 1e-100 and 1e100", "take another unit")
    return radius


class LayerConstants(Inputs):
    """Upper limits on one layer.

    Attributes:
        radius: r, on the norm of every token entering the layer.
        mlp_lipschitz: Lambda, such as 1 + ||W_2|| ||W_1||.
        heads: (||V_i||, ||A_i||) of each head; at least one head.
    """

    part_of = " of a layer"
    radius: Annotated[Positive, AfterValidator(of_floats)]
    mlp_lipschitz: Positive
    heads: Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=1)]

    @property
    def attention_lipschitz(self) -> Fraction:
        """B = sum ||V_i|| (1 + 2 ||A_i|| r^2): queries and all they attend to move alike."""
        return sum((v * (1 + 2 * a * self.radius**2) for v, a in self.heads), Fraction(0))

    @property
    def context_lipschitz(self) -> Fraction:
        """Sum ||V_i|| (1 + ||A_i|| r^2): the query stays, all that it attends to moves."""
        return sum((v * (1 + a * self.radius**2) for v, a in self.heads), Fraction(0))

    def next_radius(self, offset: Fraction | int = 0) -> Fraction:
        """Upper limit |MLP(0)| + Lambda (1 + sum ||V_i||) r on the norm of tokens that leave.

        Args:
            offset: |MLP(0)|, 0 without biases.

        Returns:
            A radius that suits the next layer.
        """
        values = sum((v for v, _ in self.heads), Fraction(0))
        return offset + self.mlp_lipschitz * (1 + values) * self.radius


def amplifications(layers: Sequence[LayerConstants]) -> tuple[Fraction, ...]:
    """g_l = Lambda_l prod_{j > l} Lambda_j (1 + B_j): what a change made in layer l grows to."""
    factors: list[Fraction] = []
    above = Fraction(1)
    for layer in reversed(layers):
        factors.append(layer.mlp_lipschitz * above)
        above *= layer.mlp_lipschitz * (1 + layer.attention_lipschitz)
    return tuple(reversed(factors))


def _of_use(layers: tuple[LayerConstants, ...]) -> tuple[LayerConstants, ...]:
    for layer in layers:
        for _, score_norm in layer.heads:
            if score_norm * layer.radius**2 > _LARGEST_POWER:
                raise UserError(
                    "||A|| r^2",
                    f"be at most {_LARGEST_POWER:,}",
                    got=shown(score_norm * layer.radius**2),
                    remedy="a factor of e to that power says nothing",
                )
    return layers


Layers = Annotated[tuple[LayerConstants, ...], Field(min_length=1), AfterValidator(_of_use)]
