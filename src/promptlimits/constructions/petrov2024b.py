"""What one soft token can ask for, and what a prefix cannot change; after [@petrov2024b].

**One soft token, V^N answers.** A transformer of one layer with two heads that, behind one soft
token s in [0,1)^N, generates any of the V^N sequences of N digits below V, one digit a step:
s_i = Y_i/V. Behind a hard token, one of V, it generates at most V sequences.

Coordinates of a token: content (N), place (N, one-hot, from the positions), sum (N), z. Head 1
points each token at itself and returns its place e_i; head 2 points at token 0 and returns its
content s; the MLP keeps sum_c ReLU(e_i + s - 1)_c = s_i as z. The logit of digit v is
2 (v/V) z - (v/V)^2 = z^2 - (z - v/V)^2, largest for the v/V nearest to z. Softmax with logits
`POINTER` above the others mixes in at most N exp(-POINTER) of other tokens, and the answer is
right while 2 N^2 exp(-POINTER) + rounding < 1/(2 V).

*Proof of the last claim.* Each head's output is off by at most N e^-POINTER in each of N
coordinates, ReLU does not enlarge that, so z is off by at most 2 N^2 e^-POINTER. []

**What a prefix cannot change.** In one attention head, keys p_1, p_2, .. in front of the content
only scale the shares of the content: share(i, j) = (1 - alpha_i) share without prefix(i, j), with
alpha_i what the prefix gets. Ratios among the content stay, and the output is
(1 - alpha_i) t_i + alpha_i (mean of prefix values). It says so of a layer with given inputs:
deeper layers see other inputs behind another prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from promptlimits._checks import require_positive_int
from promptlimits.errors import UserError
from promptlimits.lipschitz.weights import Array, HeadWeights, LayerWeights, TransformerWeights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptlimits.models.transformer import PaperTransformer

POINTER: Final = 50
"""Logit of the token that a head points at, over all others."""

_MOST_DIGITS: Final = 2**24
_MOST_STEPS: Final = 1_000
_MOST_NUMBERS: Final = 2**26


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftTokenNetwork:
    """The network for one vocabulary and one length.

    Attributes:
        digits: V.
        steps: N.
        weights: One layer of two heads, width 3 N + 1.
        positions: Added to the tokens, (3 N + 1, N).
        readout: Logits of the digits are readout @ token, (V, 3 N + 1).
        embeddings: Token of each digit, (3 N + 1, V).
    """

    digits: int
    steps: int
    weights: TransformerWeights
    positions: Array
    readout: Array
    embeddings: Array

    def soft_token(self, answer: Sequence[int]) -> Array:
        """The soft token that asks for a sequence.

        Args:
            answer: N digits below V.

        Returns:
            The token, (3 N + 1,).

        Raises:
            UserError: It is no such sequence.
        """
        if len(answer) != self.steps or not all(0 <= digit < self.digits for digit in answer):
            raise UserError(
                "the answer",
                f"be {self.steps} digits from 0 to {self.digits - 1}",
                got=str(tuple(answer)),
                remedy="build the network for that vocabulary and length",
            )
        token = np.zeros(self.weights.dim)
        token[: self.steps] = np.array(answer) / self.digits
        return token

    def paper_transformer(self) -> PaperTransformer:
        """The network as the papers' transformer in torch, causal, with its positions."""
        import torch

        from promptlimits.models.transformer import from_weights

        return replace(
            from_weights(self.weights), positions=torch.tensor(self.positions, dtype=torch.float64)
        )

    def generate(self, first: Array) -> tuple[int, ...]:
        """Generate N digits greedily behind a first token.

        Args:
            first: The prompt: one token, (3 N + 1,).

        Returns:
            The digits.
        """
        import torch

        network = self.paper_transformer()
        tokens = np.asarray(first, dtype=np.float64)[:, None]
        answer: list[int] = []
        for _ in range(self.steps):
            last = network(torch.tensor(tokens))[:, -1].numpy()
            answer.append(int((self.readout @ last).argmax()))
            tokens = np.concatenate(
                [tokens, self.embeddings[:, answer[-1] : answer[-1] + 1]], axis=1
            )
        return tuple(answer)


def soft_token_network(*, digits: int, steps: int) -> SoftTokenNetwork:
    """Build the network.

    Args:
        digits: V.
        steps: N.

    Returns:
        The network.

    Raises:
        UserError: float64 does not tell the digits apart, or they take too much memory; nothing
            was allocated.
    """
    require_positive_int("digits", digits)
    require_positive_int("steps", steps)
    numbers = digits * (3 * steps + 1)
    if digits > _MOST_DIGITS or steps > _MOST_STEPS or numbers > _MOST_NUMBERS:
        raise UserError(
            "digits and steps",
            f"be at most {_MOST_DIGITS:,} and {_MOST_STEPS:,}, with a readout of at most "
            f"{_MOST_NUMBERS:,} numbers",
            got=f"{digits:,} and {steps:,}, which make {numbers:,}",
            remedy="use fewer; float64 has 53 bits, and softmax lets a little through",
        )
    width, eye = 3 * steps + 1, np.eye(steps)
    content, place, work = (slice(k * steps, (k + 1) * steps) for k in range(3))
    rows = np.zeros((3, steps, width))
    rows[0][:, content] = rows[1][:, place] = rows[2][:, work] = eye
    everywhere, at_start = np.zeros((1, width)), np.zeros((1, width))
    everywhere[0, place], at_start[0, place.start] = POINTER, 1
    heads = (
        HeadWeights(query=POINTER * rows[1], key=rows[1], value=rows[1], output=rows[2].T),
        HeadWeights(query=everywhere, key=at_start, value=rows[0], output=rows[2].T),
    )
    w2 = np.zeros((width, steps))
    w2[-1] = 1
    layer = LayerWeights(heads=heads, w1=rows[2], b1=-np.ones(steps), w2=w2, b2=np.zeros(width))
    positions, embeddings = np.zeros((width, steps)), np.zeros((width, digits))
    positions[place] = eye
    share = np.arange(digits) / digits
    embeddings[0] = share
    readout = np.zeros((digits, width))
    readout[:, -1] = 2 * share
    readout[:, place] = -(share**2)[:, None]
    return SoftTokenNetwork(
        digits=digits,
        steps=steps,
        weights=TransformerWeights(layers=(layer,), masked=True),
        positions=positions,
        readout=readout,
        embeddings=embeddings,
    )


def content_shares(attention: Array, prefix: int) -> Array:
    """Attention among the content, as shares of what the content gets.

    Args:
        attention: Shares (.., queries, keys) with the prefix in front; rows sum to 1.
        prefix: Tokens of the prefix, among queries and keys.

    Returns:
        Shares (.., content, content); rows sum to 1.
    """
    among = np.asarray(attention, dtype=np.float64)[..., prefix:, prefix:]
    shares: Array = among / among.sum(axis=-1, keepdims=True)
    return shares


def largest_share_change(with_prefix: Array, without: Array, prefix: int) -> float:
    """How much a prefix changed relative attention among the content: nothing, but for rounding.

    Args:
        with_prefix: Shares (.., queries, keys) of a layer behind a prefix.
        without: Shares of the same layer for the content alone.
        prefix: Tokens of the prefix.

    Returns:
        The largest difference of a share.
    """
    return float(np.abs(content_shares(with_prefix, prefix) - np.asarray(without)).max())
