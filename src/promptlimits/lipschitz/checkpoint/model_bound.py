"""A Lipschitz constant of a whole checkpoint: prompt tokens to the last token's hidden state.

**Statement.** Let Phi map m_p prompt tokens to the hidden state of the last token behind the final
norm, the remaining input being fixed and the last token not in the prompt. In the token norm Phi
is Lipschitz on the whole space with

    L = q_l max|gain| / s_min  (a final norm),   L = q_l max|gain|  (post),   p_0 = 1, q_0 = 0,

q_l the sensitivity of `block_bound` behind the last block; behind an entry norm p_0 = 1 / s_min.
It depends neither on the number of tokens nor on the mask, nor on the radius of the prompt, as
every block sees its input only through a norm.

**Assumptions.** Real arithmetic in place of the model's rounding; with a trust region S0 > 0, the
constant is that of the model with clipped norms (`block_bound`), which is the model itself on the
prompts inside the region.

**Cost.** The norms of each block, one block in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np
from flint import arb

from promptlimits.base.bound import (
    PRECISION_BITS,
    Assumption,
    LogBound,
    Source,
    grid_upper,
    working_precision,
)
from promptlimits.base.errors import UserError
from promptlimits.lipschitz.balls.matrix import DOUBLE_ARITHMETIC, ProductOverflow
from promptlimits.lipschitz.checkpoint.block import Block, Checkpoint, NormWeights
from promptlimits.lipschitz.checkpoint.block_bound import (
    Sensitivity,
    known,
    least_deviation,
    through_block,
)
from promptlimits.lipschitz.checkpoint.block_norms import (
    BlockFacts,
    NormFacts,
    block_facts,
    norm_facts,
)
from promptlimits.theory.prompt_capacity import trust_region

SOURCE: Final = Source(
    reference="promptlimits",
    statement="Lipschitz constant of a checkpoint (promptlimits.lipschitz.checkpoint.model_bound)",
    form="proved here",
)
EXACT_MODEL: Final = Assumption(
    text="The model computes with real numbers: what its floating-point arithmetic rounds off "
    "is not covered."
)
PROMPT_IN_FRONT: Final = Assumption(
    text="Prompt tokens stand in the place of token embeddings, before positions are added; the "
    "rest of the input is fixed, and the tokens that are read belong to it."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelFacts:
    """All that a checkpoint's constant is computed from.

    Attributes:
        family: Such as "llama".
        dim: D.
        entry_norm: Norm in front of the first block, or None.
        final_norm: Norm behind the last, or None.
        blocks: One for each block.
    """

    family: str
    dim: int
    entry_norm: NormFacts | None
    final_norm: NormFacts | None
    blocks: tuple[BlockFacts, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelBound:
    """A proved Lipschitz constant of a checkpoint.

    Attributes:
        bound: Upper limit on L.
        layers: Upper limit behind each block on how far the rows that are read move, on the
            scale of that block's output ("post": before its last gain).
        facts: The norms.
        deviation: S0, or 0.
    """

    bound: LogBound
    layers: tuple[LogBound, ...]
    facts: ModelFacts
    deviation: Fraction


def read_facts(
    checkpoint: Checkpoint, *, on_layer: Callable[[int], None] = lambda _done: None
) -> ModelFacts:
    """Prove the norms of every block, one block in memory at a time."""
    blocks = []
    entry = checkpoint.entry_norm
    for done, block in enumerate(checkpoint.blocks, start=1):
        blocks.append(_facts_of(block, entry, f"block {done} of the {checkpoint.family} model"))
        if block.arrangement == "post":
            entry = block.feed_forward_norm
        on_layer(done)
    return ModelFacts(
        family=checkpoint.family,
        dim=checkpoint.dim,
        entry_norm=None if checkpoint.entry_norm is None else norm_facts(checkpoint.entry_norm),
        final_norm=None if checkpoint.final_norm is None else norm_facts(checkpoint.final_norm),
        blocks=tuple(blocks),
    )


def _facts_of(block: Block, entry: NormWeights | None, name: str) -> BlockFacts:
    """The norms of a block, or a refusal where products of its weights overflow."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            facts = block_facts(block, entry)
        _require_finite(facts)
    except (ProductOverflow, ValueError, OverflowError) as error:
        raise UserError(
            name,
            "have weights whose products are finite in double precision",
            got="an overflow",
            remedy="no bound is computed for such weights; get them again",
        ) from error
    return facts


def _require_finite(value: object) -> None:
    """Look through nested norms."""
    if is_dataclass(value):
        for field in fields(value):
            _require_finite(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            _require_finite(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise OverflowError("an infinite norm")


def require_prompts_in_region(
    checkpoint: Checkpoint, *, radius: Fraction, deviation: Fraction
) -> None:
    """Refuse a trust region in which there is no prompt: a bound for none is a bound for nothing.

    The first norm divides the prompt token itself, or with positions and types added, less its
    mean: a vector of length at most rho + |added|, of deviation at most that over sqrt(D).
    """
    if checkpoint.added is None:
        return
    longest = radius + checkpoint.added
    if deviation**2 * checkpoint.dim > longest**2:
        raise UserError(
            "least_deviation",
            "be one that some prompt in the ball keeps",
            got=f"{_few_digits(deviation)}, above {_few_digits(longest)} / sqrt({checkpoint.dim}), "
            "the most in front of the first norm",
            remedy="lower it, or raise the radius",
        )


def _few_digits(value: Fraction) -> str:
    """A number, however large, as a message shows it."""
    return f"{Decimal(value.numerator) / Decimal(value.denominator):.4g}"


def model_bound(
    facts: ModelFacts, *, deviation: Fraction = Fraction(0), precision_bits: int = PRECISION_BITS
) -> ModelBound:
    """Compose the norms of a checkpoint to its Lipschitz constant."""
    assumptions: tuple[Assumption, ...] = (EXACT_MODEL, PROMPT_IN_FRONT, DOUBLE_ARITHMETIC)
    if deviation > 0:
        assumptions = (*assumptions, trust_region(deviation))
    _require_positive_deviations(facts, deviation)
    with working_precision(precision_bits):
        logs = [_log(state.query) for state in _states(facts, deviation)[1:]]

    def limit(log: arb, quantity: str) -> LogBound:
        return LogBound(
            direction="upper", log=log, quantity=quantity, source=SOURCE, assumptions=assumptions
        )

    return ModelBound(
        bound=limit(
            grid_upper(lambda: _log_constant(facts, deviation)),
            f"Lipschitz constant of {facts.family} from the prompt to the last hidden state",
        ),
        layers=tuple(
            limit(log, f"sensitivity behind block {number}")
            for number, log in enumerate(logs, start=1)
        ),
        facts=facts,
        deviation=deviation,
    )


def _states(facts: ModelFacts, deviation: Fraction) -> list[Sensitivity]:
    """Sensitivities in front of the first block and behind each, at the current precision."""
    states = [_start(facts, deviation)]
    for block in facts.blocks:
        states.append(through_block(block, states[-1], dim=facts.dim, deviation=deviation))
    return states


def _log_constant(facts: ModelFacts, deviation: Fraction) -> arb:
    last = _states(facts, deviation)[-1]
    constant = last.query * last.gain
    if facts.final_norm is not None:
        constant *= known(facts.final_norm.gain) / least_deviation(facts.final_norm, deviation)
    return _log(constant)


def _log(value: arb) -> arb:
    """The logarithm, rounded up to that of 2^-1000 where the value may be 0."""
    return (value + arb(2) ** -1000).log()


def _start(facts: ModelFacts, deviation: Fraction) -> Sensitivity:
    entry = facts.entry_norm
    if entry is None:
        return Sensitivity(prompt=arb(1), query=arb(0), gain=arb(1))
    return Sensitivity(
        prompt=1 / least_deviation(entry, deviation), query=arb(0), gain=known(entry.gain)
    )


def _require_positive_deviations(facts: ModelFacts, deviation: Fraction) -> None:
    norms = [facts.entry_norm, facts.final_norm]
    for block in facts.blocks:
        norms += [block.attention_norm, block.feed_forward_norm]
        norms += [block.attention_post_norm, block.feed_forward_post_norm]
        norms += [block.attention.query_norm, block.attention.key_norm]
    if any(norm is not None and norm.eps + deviation**2 <= 0 for norm in norms):
        raise ZeroDivisionError("a norm without eps has no Lipschitz constant")
