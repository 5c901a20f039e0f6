"""The ceiling of a model and a task at one prompt length, as a bracket shows it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from promptlimits.base.exact import log, outward_float
from promptlimits.bounds.counting import Counting
from promptlimits.capacity.search.request import PromptSize
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.nets.protocol import ModelCard, PromptKind
from promptlimits.record.parts import Ceiling

STORED_DTYPE = "float32"
"""What the numbers of a witness are stored as."""

STORED_BITS = 32
"""Bits that such a number takes on disk."""


@dataclass(frozen=True, kw_only=True)
class TaskCeiling:
    """The counting theorem applied to a model's prompts and a task's answers."""

    counting: Counting  # the theorem for the case
    answer_set: str  # the set of answers in words
    answers_random: bool  # whether the task's answers were drawn from that set at random
    kind: PromptKind  # what the prompts are
    stored_bits: int  # bits that the numbers of such a prompt take on disk
    certificate_name: str  # file in the output folder that holds its certificate

    @cached_property
    def _certificate(self) -> dict[str, Any]:
        return self.counting.certificate()

    @property
    def pairs(self) -> int | None:
        """K: random lists longer than it are out of reach, but for a share; None if there is none.

        The lists are of max(pool, k) answers, of which k > K would have to be right.
        """
        pairs: int | None = self._certificate["value"]["pairs"]
        return pairs

    @property
    def answer_bits(self) -> float:
        """Bits of that many answers, rounded up; those of the prompt where there is no limit."""
        pairs, size = self.pairs, self.counting.answers
        if pairs is None:
            return self.counting.prompt_bits()
        exact = whole_bits(size)
        if exact is not None:
            return float(pairs * exact)
        return outward_float(lambda: pairs * log(size) / log(2), up=True)

    @property
    def certificate(self) -> bytes:
        """The certificate as the file of that name holds it."""
        return (json.dumps(self._certificate, indent=1) + "\n").encode()

    @property
    def stated(self) -> Ceiling:
        """The ceiling as the record shows it."""
        counting, value = self.counting, self._certificate["value"]
        return Ceiling(
            status="proved",
            pairs=self.pairs,
            every_list_pairs=value["every_list_pairs"],
            bits=self.answer_bits,
            prompt_bits=counting.prompt_bits(),
            source=counting.source,
            statement=counting.claim(value, answers=self.answer_set),
            assumptions=tuple(counting.rests_on()),
            pool=counting.pool,
            certificate=self.certificate_name,
            certificate_sha256=hashlib.sha256(self.certificate).hexdigest(),
            share_log2=self.share_log2,
        )

    @property
    def share_log2(self) -> float:
        """Share of the lists that are let through, as a power of two."""
        share = self.counting.share
        return -math.log2(share.denominator / share.numerator)


def task_ceiling(
    card: ModelCard,
    task: EncodedTask,
    *,
    size: PromptSize,
    width: int | None = None,
) -> TaskCeiling:
    """Apply the counting theorem.

    It counts the numbers of a prompt, wherever in the model they go: a prefix is a prompt of
    wider tokens.
    """
    numbers = card.dim if width is None else width
    case = {
        "dim": numbers,
        "prompt_tokens": size.tokens,
        "values": f"{STORED_DTYPE}/{card.compute_dtype}",
        "answers": task.answer_set_size,
        "pool": len(task.pairs),
    }
    return TaskCeiling(
        counting=Counting.model_validate(case),
        answer_set=task.answer_set_text,
        answers_random=task.answers_random,
        kind=size.kind,
        stored_bits=STORED_BITS * numbers * size.tokens,
        certificate_name=f"ceiling-{size.file_name}.json",
    )


def floor_bits(ceiling: TaskCeiling, pairs: int) -> float:
    """Bits that `pairs` answers of the task's answer set take, rounded down."""
    size = ceiling.counting.answers
    exact = whole_bits(size)
    if pairs == 0 or exact is not None:
        return float(pairs * (exact or 0))
    each = outward_float(lambda: log(size) / log(2), up=False)
    return max(0.0, math.nextafter(pairs * each, -math.inf))


def whole_bits(size: int) -> int | None:
    """log2 of a power of two, which needs no rounding; None for any other number."""
    return size.bit_length() - 1 if size.bit_count() == 1 else None
