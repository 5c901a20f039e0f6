"""The ceiling of a model and a task at one prompt length, as a bracket shows it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

from promptlimits.base.bound import LogBound
from promptlimits.base.typing import JsonObject, JsonValue
from promptlimits.capacity.search.request import PromptSize
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.nets.protocol import ModelCard, PromptKind
from promptlimits.theory.number_formats import number_format
from promptlimits.theory.token_capacity import CountingCeiling, counting_ceiling

STORED_DTYPE = "float32"
"""What the numbers of a witness are stored as."""

STORED_BITS = 32
"""Bits that such a number takes on disk."""


@dataclass(frozen=True, kw_only=True)
class TaskCeiling:
    """The counting theorem applied to a model's prompts and a task's answers.

    Attributes:
        counting: The theorem's result.
        answer_set_size: M, how many answers each one is drawn from.
        answers_random: Whether the task's answers were drawn from that set at random.
        pool: Pairs in the list, among which a prompt may choose.
        kind: What the prompts are.
        stored_bits: Bits that the numbers of such a prompt take on disk.
        certificate_name: File in the output folder that holds its certificate.
    """

    counting: CountingCeiling
    answer_set_size: int
    answers_random: bool
    pool: int
    kind: PromptKind
    stored_bits: int
    certificate_name: str

    @property
    def pairs(self) -> int | None:
        """K: random lists longer than it are out of reach, but for a share; None if there is none.

        The lists are of max(pool, k) answers, of which k > K would have to be right.
        """
        return self.counting.pairs

    @property
    def answer_bits(self) -> float:
        """Bits of that many answers, rounded up; those of the prompt where there is no limit."""
        pairs, exact = self.counting.pairs, whole_bits(self.answer_set_size)
        if pairs is None:
            return self.counting.bits.upper_bits()
        if exact is not None:
            return float(pairs * exact)
        each = LogBound.of(
            self.answer_set_size,
            direction="upper",
            quantity="answers to choose from",
            source=self.counting.source,
        )
        return each.power(pairs, quantity=f"lists of {pairs} answers").upper_bits()

    @property
    def certificate(self) -> bytes:
        """The certificate as the file of that name holds it."""
        return (json.dumps(self.counting.certificate.to_json(), indent=1) + "\n").encode()

    def to_json(self) -> JsonObject:
        """The ceiling as the record shows it."""
        assumptions: list[JsonValue] = [item.text for item in self.counting.assumptions]
        source = self.counting.source
        return {
            "status": "proved",
            "pairs": self.pairs,
            "every_list_pairs": self.counting.every_list_pairs,
            "bits": self.answer_bits,
            "prompt_bits": self.counting.bits.upper_bits(),
            "source": f"{source.reference}: {source.statement}",
            "statement": self.counting.statement,
            "assumptions": assumptions,
            "pool": self.pool,
            "certificate": self.certificate_name,
            "certificate_sha256": hashlib.sha256(self.certificate).hexdigest(),
            "share_log2": -math.log2(
                self.counting.share.denominator / self.counting.share.numerator
            ),
        }


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
    counting = counting_ceiling(
        number=number_format(stored=STORED_DTYPE, computed=card.compute_dtype),
        dim=numbers,
        prompt_tokens=size.tokens,
        answer_set_size=task.answer_set_size,
        answer_set=task.answer_set_text,
        answers_random=task.answers_random,
        pool=len(task.pairs),
    )
    return TaskCeiling(
        counting=counting,
        answer_set_size=task.answer_set_size,
        answers_random=task.answers_random,
        pool=len(task.pairs),
        kind=size.kind,
        stored_bits=STORED_BITS * numbers * size.tokens,
        certificate_name=f"ceiling-{size.file_name}.json",
    )


def floor_bits(ceiling: TaskCeiling, pairs: int) -> float:
    """Bits that `pairs` answers of the task's answer set take, rounded down."""
    if pairs == 0:
        return 0.0
    exact = whole_bits(ceiling.answer_set_size)
    if exact is not None:
        return float(pairs * exact)
    return max(0.0, math.nextafter(pairs * ceiling.counting.answer_bits.lower_bits(), -math.inf))


def whole_bits(size: int) -> int | None:
    """log2 of a power of two, which needs no rounding; None for any other number."""
    return size.bit_length() - 1 if size.bit_count() == 1 else None
