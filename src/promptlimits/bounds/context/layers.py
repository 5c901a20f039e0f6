"""Transformers as layers, and Theorem W: long bounded prompts wash the query out.

Each layer is x_j -> MLP(x_j + sum_i V_i y_i(x_j)), y_i(x) the mean of the tokens that x attends
to, weighted by exp(y . A_i x): V_i = W_o W_v, A_i = W_k^T W_q. Known are upper limits: r on the
norm of every token that enters, ||V_i||, ||A_i|| (spectral), and the MLP's Lipschitz constant
Lambda (its residual included). All are exact.

**Theorem W.** Two queries of m >= 2 tokens end with the same token. All tokens that enter layer
l, behind a prompt of m_p tokens, have norm at most r_l; masked or not, any depth. Then the last
outputs differ by at most E = E_depth, E_0 = 0,
E_l = Lambda_l (E_(l-1) + sum_i ||V_i|| min(2 r_l, (1 + 2 ||A_i|| r_l^2) E_(l-1) + 4 r_l b_i)),
b_i = c_i/(c_i + m_p + 1), c_i = (m - 1) e^(2 ||A_i|| r_l^2): E = O(m/m_p). Hence for answers y, y'
one of the two errors is at least (|y - y'| - E)/2: answers further apart than E + 2 eps cannot be
kept within eps, by any such prompt.
*Proof.* E_l limits the difference of the tokens that both runs share: the prompt's and the last.
The softmax mass of the m - 1 others is at most b_i, as e^(y.Ax) lies between e^(-a r) and
e^(a r), a = ||A_i|| r. Leaving them out changes a head's output by at most 2 r ||V_i|| b_i in
either run. What then attends to shared tokens only, moved by at most E_(l-1), changes by at most
||V_i|| (1 + 2 ||A_i|| r^2) E_(l-1). In any case both outputs lie in the ball ||V_i|| r. []
In a masked transformer prompt tokens see no query, and the same holds.

**Tightness.** Measured differences fall like 1/m_p as well. **Cost.** Microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, Final

from flint import arb
from pydantic import AfterValidator, Field, field_validator

from promptlimits.base.errors import UserError
from promptlimits.base.exact import (
    Rule,
    ball,
    exact,
    grid_up,
    is_negative,
    largest,
    number_text,
    outward_float,
    shown,
)
from promptlimits.bounds.core import Count, Inputs, Positive, Size, Theorem, decades

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


class Washout(Theorem):
    """How little the query can matter behind a prompt of so many tokens.

    Letters: m query_tokens, m_p prompt_tokens. After l layers of more, E is that of
    `layers[:l]`.
    """

    kind = "washout"
    source = "promptlimits: Theorem W (proved here)"
    assumptions = (
        (
            "Every token that enters a layer, of the prompt or of either query, has norm at most "
            "the given radius, and each layer has the given limits."
        ),
        (
            "Both queries have the given number of tokens at most, end with the same token, and "
            "follow the same prompt of the given length."
        ),
    )
    layers: Layers
    query_tokens: Size
    prompt_tokens: Count

    @field_validator("query_tokens")
    @classmethod
    def _several(cls, tokens: int) -> int:
        if tokens < 2:
            raise Rule("be 2 or more", "queries of one token that end alike are the same query")
        return tokens

    def difference(self) -> arb:
        """Ball around E."""
        return _difference(self.layers, self.query_tokens, self.prompt_tokens)

    def value(self) -> dict[str, Any]:
        """log E."""
        return {"log_difference": grid_up(lambda: self.difference().log())}

    def claim(self, value: dict[str, Any]) -> str:
        """What is proved, in one sentence."""
        return (
            f"Theorem W: behind {number_text(self.prompt_tokens, commas=True)} prompt tokens, two "
            f"queries of {self.query_tokens} tokens that end alike have last outputs within E = "
            f"{decades(value['log_difference'])} after {len(self.layers)} layers; answers further "
            "apart than E + 2 eps cannot be kept within eps; under the assumptions that it states"
        )

    def least_error(self, gap: Fraction | int | str) -> float | None:
        """Lower limit (gap - E)/2 on the larger of the two errors.

        Args:
            gap: |y - y'|, how far the two answers are apart.

        Returns:
            The limit, rounded down, or None where it is not above 0.
        """
        error = outward_float(lambda: (ball(exact(gap)) - self.difference()) / 2, up=False)
        return error if error > 0 else None


def washed_out_from(
    *,
    layers: Sequence[LayerConstants],
    query_tokens: int,
    gap: Fraction | int | str,
    eps: Fraction | int | str = 0,
) -> int:
    """The least prompt length from which on answers `gap` apart cannot both be kept within eps.

    E falls with m_p. Proved is that E + 2 eps < gap at that length, not at the one before.

    Args:
        layers: From the first to the last.
        query_tokens: m, 2 or more.
        gap: |y - y'|.
        eps: The error allowed, below half the gap.

    Returns:
        m_p.

    Raises:
        UserError: A value is out of range.
    """
    here = Washout(layers=tuple(layers), query_tokens=query_tokens, prompt_tokens=1)
    error, room = exact(eps), exact(gap) - 2 * exact(eps)
    if error < 0 or room <= 0:
        raise UserError(
            "eps", "be at least 0 and below half the gap", got=shown(error), remedy="take less"
        )

    def kept(length: int) -> bool:
        return not is_negative(lambda: _difference(here.layers, query_tokens, length) - ball(room))

    return 1 + largest(kept)


def _difference(layers: Sequence[LayerConstants], query_tokens: int, prompt_tokens: int) -> arb:
    error = arb(0)
    for layer in layers:
        radius, moved = ball(layer.radius), error
        for value_norm, score_norm in layer.heads:
            steep = ball(2 * score_norm * layer.radius**2)
            mass = 1 / (1 + (prompt_tokens + 1) / ((query_tokens - 1) * steep.exp()))
            change = (1 + steep) * error + 4 * radius * mass
            moved += ball(value_norm) * change.min(2 * radius)
        error = ball(layer.mlp_lipschitz) * moved
    return error
