"""What the theorems about contexts of any length need to know of a transformer's layers.

Each layer is x_j -> MLP(x_j + sum_i V_i y_i(x_j)), y_i(x) the mean of the tokens that x attends
to, weighted by exp(y . A_i x): V_i = W_o W_v, A_i = W_k^T W_q. Known are upper limits: r on the
norm of every token that enters, ||V_i||, ||A_i|| (spectral), and the MLP's Lipschitz constant
Lambda (its residual included). All are exact.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from promptlimits.base.bound import Exact
from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject
from promptlimits.theory.prompt_setting import require_exact_positive

_NUMBER: Final = re.compile(r"\d+/\d+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,9})?", re.ASCII)
_FIELDS = {"radius", "mlp_lipschitz", "heads"}


@dataclass(frozen=True, kw_only=True)
class LayerConstants:
    """Upper limits on one layer.

    Attributes:
        radius: r, on the norm of every token entering the layer.
        mlp_lipschitz: Lambda, such as 1 + ||W_2|| ||W_1||.
        heads: (||V_i||, ||A_i||) of each head; at least one head.

    Raises:
        UserError: A limit is not above 0, or there is no head.
        TypeError: A limit is a float.
    """

    radius: Exact
    mlp_lipschitz: Exact
    heads: tuple[tuple[Exact, Exact], ...]

    def __post_init__(self) -> None:
        require_exact_positive("radius of a layer", self.radius)
        require_exact_positive("mlp_lipschitz of a layer", self.mlp_lipschitz)
        if not self.heads:
            raise UserError(
                "heads of a layer", "be one or more", got=0, remedy="give [||V||, ||A||] for each"
            )
        for value_norm, score_norm in self.heads:
            require_exact_positive("value norm of a head", value_norm)
            require_exact_positive("score norm of a head", score_norm)

    @property
    def attention_lipschitz(self) -> Fraction:
        """B = sum ||V_i|| (1 + 2 ||A_i|| r^2): queries and all they attend to move alike."""
        return sum((v * (1 + 2 * a * self._square) for v, a in self.heads), Fraction(0))

    @property
    def context_lipschitz(self) -> Fraction:
        """Sum ||V_i|| (1 + ||A_i|| r^2): the query stays, all that it attends to moves."""
        return sum((v * (1 + a * self._square) for v, a in self.heads), Fraction(0))

    @property
    def _square(self) -> Fraction:
        return Fraction(self.radius) ** 2

    def next_radius(self, offset: Exact = 0) -> Fraction:
        """Upper limit |MLP(0)| + Lambda (1 + sum ||V_i||) r on the norm of tokens that leave.

        Args:
            offset: |MLP(0)|, 0 without biases.

        Returns:
            A radius that suits the next layer.
        """
        values = sum((Fraction(v) for v, _ in self.heads), Fraction(0))
        return Fraction(offset) + Fraction(self.mlp_lipschitz) * (1 + values) * Fraction(
            self.radius
        )

    def to_json(self) -> JsonObject:
        """As plain JSON, exactly."""
        return {
            "radius": str(Fraction(self.radius)),
            "mlp_lipschitz": str(Fraction(self.mlp_lipschitz)),
            "heads": [[str(Fraction(v)), str(Fraction(a))] for v, a in self.heads],
        }

    @classmethod
    def from_json(cls, record: Any) -> LayerConstants:
        """The layer of a JSON record; decimal texts such as "0.1" are read exactly.

        Args:
            record: Parsed JSON with texts or whole numbers.

        Returns:
            The layer.

        Raises:
            UserError: A field is missing, unknown or no number.
        """
        if not isinstance(record, dict) or set(record) != _FIELDS:
            raise UserError(
                "a layer",
                "have the fields radius, mlp_lipschitz and heads, no others",
                got=sorted(record) if isinstance(record, dict) else record,
                remedy='write {"radius": "1", "mlp_lipschitz": "1", "heads": [["1", "1"]]}',
            )
        heads = record["heads"]
        if not isinstance(heads, list) or any(
            not isinstance(head, list) or len(head) != 2 for head in heads
        ):
            raise UserError(
                "heads of a layer",
                "be a list of pairs",
                got=heads,
                remedy="give [||V||, ||A||] for each head",
            )
        return cls(
            radius=_exact(record["radius"]),
            mlp_lipschitz=_exact(record["mlp_lipschitz"]),
            heads=tuple((_exact(v), _exact(a)) for v, a in heads),
        )


def amplifications(layers: Sequence[LayerConstants]) -> tuple[Fraction, ...]:
    """g_l = Lambda_l prod_{j > l} Lambda_j (1 + B_j): what a change made in layer l grows to."""
    factors: list[Fraction] = []
    above = Fraction(1)
    for layer in reversed(layers):
        factors.append(Fraction(layer.mlp_lipschitz) * above)
        above *= Fraction(layer.mlp_lipschitz) * (1 + layer.attention_lipschitz)
    return tuple(reversed(factors))


def _exact(value: Any) -> Fraction:
    """An int, or a text such as "1e-4" or "1/3", as a fraction."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | str) or len(str(value)) > 4000:
            raise ValueError
        # Fraction takes underscores, digits of other scripts and spaces: typing errors here.
        if isinstance(value, str) and not _NUMBER.fullmatch(value):
            raise ValueError
        if isinstance(value, str) and abs(int(value.lower().partition("e")[2] or 0)) > 4000:
            raise ValueError
        return Fraction(value)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(
            "a number of a layer",
            "be a whole number or an exact text",
            got=value,
            remedy='write "0.1", "1e-4" or "1/3", in quotes',
        ) from error
