"""What no prompt of a real checkpoint can do: its Lipschitz constant, put into Theorem 1.

**Statement.** Let Phi map m_p prompt tokens to the hidden state of the last token behind the final
norm, the remaining input being fixed and the last token not in the prompt. In the token norm Phi
is Lipschitz on the whole space with

    L = q_l max|gain| / s_min  (a final norm),   L = q_l max|gain|  (post),   p_0 = 1, q_0 = 0,

q_l the sensitivity of `block_bound` behind the last block; behind an entry norm p_0 = 1 / s_min.
It depends neither on the number of tokens nor on the mask, nor on the radius of the prompt, as
every block sees its input only through a norm. With a trust region S0 > 0, L is the constant of
the model with clipped norms, which is the model itself on the prompts inside the region.

Two limits on the share of lists of k target vectors that prompts bring within eps stand side by
side: Theorem 1 (`bounds.prompt_capacity`) with L, and the counting cap (`bounds.vector_counting`)
for prompts kept in a number format, which looks at no weights. Where log(1 + 2 L rho/delta)
exceeds the logarithm of the number of values that a stored number can take, the first says nothing
that the second does not say better. Targets are hidden states behind the final norm; radii and eps
are in the token norm.

**Cost.** The norms of each block, one block in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from flint import arb

from promptlimits.base.errors import UserError
from promptlimits.base.exact import grid_up, grid_value, shown
from promptlimits.bounds.core import Exp, NonNegative, Size, Theorem, decades
from promptlimits.bounds.counting import VectorCounting
from promptlimits.bounds.prompt_capacity import PromptCapacity, trust_region
from promptlimits.lipschitz.balls.matrix import DOUBLE_ARITHMETIC, ProductOverflow
from promptlimits.lipschitz.balls.spectral import row_norms
from promptlimits.lipschitz.checkpoint.block_bound import (
    Sensitivity,
    known,
    least_deviation,
    through_block,
)
from promptlimits.lipschitz.checkpoint.block_norms import (
    BlockFacts,
    Facts,
    NormFacts,
    block_facts,
    norm_facts,
)
from promptlimits.nets.block import Block, Checkpoint, NormWeights


class ModelFacts(Facts):
    """All that a checkpoint's constant is computed from.

    `outer_norm` is the norm in front of the first block where blocks normalise what they give
    ("post"), else the one behind the last.
    """

    dim: Size
    outer_norm: NormFacts
    blocks: tuple[BlockFacts, ...]

    def log_constant(self, deviation: Fraction) -> arb:
        """log L, rounded up to that of 2^-1000 where L may be 0."""
        last = self.sensitivities(deviation)[-1]
        return _log(last.query * last.gain * self._behind(deviation))

    def sensitivities(self, deviation: Fraction, most: int | None = None) -> list[Sensitivity]:
        """In front of the first block and behind each (of `most`), at the current precision."""
        states = [self._start(deviation)]
        for block in self.blocks[:most]:
            states.append(through_block(block, states[-1], dim=self.dim, deviation=deviation))
        return states

    @property
    def _post(self) -> bool:
        return self.blocks[0].arrangement == "post"

    def _start(self, deviation: Fraction) -> Sensitivity:
        if not self._post:
            return Sensitivity(prompt=arb(1), query=arb(0), gain=arb(1))
        outer = self.outer_norm
        return Sensitivity(
            prompt=1 / least_deviation(outer, deviation), query=arb(0), gain=known(outer.gain)
        )

    def _behind(self, deviation: Fraction) -> arb:
        if self._post:
            return arb(1)
        return known(self.outer_norm.gain) / least_deviation(self.outer_norm, deviation)


def _log(value: arb) -> arb:
    """The logarithm, rounded up to that of 2^-1000 where the value may be 0."""
    return (value + arb(2) ** -1000).log()


class ModelCeiling(ModelFacts, Theorem):
    """Letters: D dim, S0 least_deviation; the rest are norms of the weights and two theorems."""

    kind = "model_ceiling"
    source = "promptlimits: Lipschitz constant of a checkpoint (proved here)"
    assumptions = (
        (
            "The model computes with real numbers: what its floating-point arithmetic rounds off "
            "is not covered."
        ),
        (
            "Prompt tokens stand in the place of token embeddings, before positions are added; the "
            "rest of the input is fixed, and the tokens that are read belong to it."
        ),
        DOUBLE_ARITHMETIC.text,
    )
    weights_sha256: str
    least_deviation: NonNegative
    prompt_capacity: PromptCapacity
    vector_counting: VectorCounting

    def about_the_constant(self) -> tuple[str, ...]:
        """What the Lipschitz constant alone rests on."""
        if not self.least_deviation:
            return self.assumptions
        return (*self.assumptions, trust_region(self.least_deviation))

    def rests_on(self) -> tuple[str, ...]:
        """What the constant and the two theorems rest on, each assumption once."""
        inside = (*self.prompt_capacity.rests_on(), *self.vector_counting.rests_on())
        return tuple(dict.fromkeys((*self.about_the_constant(), *inside)))

    def log_sensitivities(self) -> list[int]:
        """Behind each block, how far the rows that are read move; in front of its last gain."""

        def behind(place: int) -> arb:
            return _log(self.sensitivities(self.least_deviation, place)[-1].query)

        return [grid_up(partial(behind, place)) for place in range(1, len(self.blocks) + 1)]

    def value(self) -> dict[str, Any]:
        """log L, and what the two theorems give."""
        return {
            "log_lipschitz": grid_up(lambda: self.log_constant(self.least_deviation)),
            "prompt_capacity": self.prompt_capacity.value(),
            "vector_counting": self.vector_counting.value(),
        }

    def certificate(self) -> dict[str, Any]:
        """Without the norms that the formulas do not use."""
        return super().certificate() | {"inputs": self.model_dump(mode="json", exclude_none=True)}

    def claim(self, value: dict[str, Any]) -> str:
        """The constant, and both limits."""
        region = (
            "for prompts that keep every deviation in front of a norm at "
            f"{shown(self.least_deviation)} or more on every input, "
        ) * (self.least_deviation > 0)
        return (
            f"{region}the map from the prompt to the last hidden state of the model of "
            f"{len(self.blocks)} blocks of width {self.dim:,} whose weights have the SHA-256 "
            f"{self.weights_sha256[:12]}... has a Lipschitz constant of at most "
            f"{decades(value['log_lipschitz'])}; with it, "
            f"{self.prompt_capacity.claim(value['prompt_capacity'])}; and "
            f"{self.vector_counting.claim(value['vector_counting'])}"
        )


def read_facts(
    checkpoint: Checkpoint, *, on_layer: Callable[[int], None] = lambda _done: None
) -> ModelFacts:
    """Prove the norms of every block, one block in memory at a time.

    Args:
        checkpoint: The weights.
        on_layer: Told how many blocks are done.

    Returns:
        Upper limits on the norms.

    Raises:
        UserError: Products of weights overflow.
    """
    blocks = []
    entry = checkpoint.entry_norm
    for done, block in enumerate(checkpoint.blocks, start=1):
        blocks.append(_facts_of(block, entry, f"block {done} of the {checkpoint.family} model"))
        if block.arrangement == "post":
            entry = block.feed_forward_norm
        on_layer(done)
    outer = checkpoint.entry_norm or checkpoint.final_norm
    if outer is None:
        raise ValueError("a checkpoint has a norm in front of its blocks or behind them")
    return ModelFacts(dim=checkpoint.dim, outer_norm=norm_facts(outer), blocks=tuple(blocks))


def _facts_of(block: Block, entry: NormWeights | None, name: str) -> BlockFacts:
    """The norms of a block; infinities are no fractions."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return block_facts(block, entry)
    except (ProductOverflow, ValueError, OverflowError) as error:
        raise UserError(
            name,
            "have weights whose products are finite in double precision",
            got="an overflow",
            remedy="no bound is computed for such weights; get them again",
        ) from error


def require_prompts_in_region(
    checkpoint: Checkpoint, *, radius: Fraction, deviation: Fraction
) -> None:
    """Refuse a trust region in which there is no prompt: a bound for none is a bound for nothing.

    The first norm divides the prompt token itself, or with positions and types added, less its
    mean: a vector of length at most rho + |added|, of deviation at most that over sqrt(D).
    """
    if checkpoint.added is None or not deviation:
        return
    longest = radius + sum(max(row_norms(table), default=0) for table in checkpoint.added)
    if deviation**2 * checkpoint.dim > longest**2:
        raise UserError(
            "least_deviation",
            "be one that some prompt in the ball keeps",
            got=f"{_few_digits(deviation)}, above {_few_digits(longest)} / sqrt({checkpoint.dim}), "
            "the most in front of the first norm",
            remedy="lower it, or raise the radius",
        )


def _few_digits(value: Fraction) -> str:
    return f"{Decimal(value.numerator) / Decimal(value.denominator):.4g}"


def model_ceiling(
    facts: ModelFacts,
    *,
    weights_sha256: str,
    values: Any,
    prompt_tokens: int,
    tokens: int,
    radius: Fraction,
    eps: Fraction,
    target_radius: Fraction | None = None,
    deviation: Fraction = Fraction(0),
    pairs: int | None = None,
) -> ModelCeiling:
    """Put a checkpoint's constant into Theorem 1, beside the counting cap.

    Args:
        facts: The norms.
        weights_sha256: Of the files that they were read from.
        values: How many a stored number takes, or a format's name.
        prompt_tokens: m_p.
        tokens: Hidden states read of each input.
        radius: Of the ball of prompt tokens.
        eps: Error allowed.
        target_radius: Of the ball of targets; `radius` if not given.
        deviation: S0.
        pairs: k; for each theorem the first that it excludes if not given.

    Returns:
        Both limits.
    """
    constant = grid_up(lambda: facts.log_constant(deviation))
    shared: dict[str, Any] = {
        "dim": facts.dim,
        "prompt_tokens": prompt_tokens,
        "tokens": tokens,
        "radius": radius if target_radius is None else target_radius,
        "eps": eps,
    }
    net = PromptCapacity(
        **shared,
        lipschitz=Exp(exp=grid_value(constant)),
        prompt_radius=radius,
        norm="token",
        least_deviation=deviation,
    )
    counted = VectorCounting(**shared, values=values)
    return ModelCeiling(
        **dict(facts),
        weights_sha256=weights_sha256,
        least_deviation=deviation,
        prompt_capacity=net.model_copy(update={"pairs": pairs or _first(net)}),
        vector_counting=counted.model_copy(update={"pairs": pairs or _first(counted)}),
    )


def _first(theorem: PromptCapacity | VectorCounting) -> int:
    """The first number of pairs that is excluded, or the largest that a certificate holds."""
    return min(theorem.most_pairs() + 1, 10**18)
