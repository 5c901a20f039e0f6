"""Greedy decoding by stock `generate`, running free: its own tokens are its input.

Keys of one length are decoded together, so no row is padded (a prompt in front of left padding is a
known fault of PEFT's format).
"""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch


def decode(
    model: Any,
    keys: Sequence[Sequence[int]],
    *,
    stops: Sequence[int],
    most_tokens: int,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, ...]]:
    """What stock `generate` answers to each key, up to the first end marker."""
    answers: dict[int, tuple[int, ...]] = {}
    tell = on_progress or (lambda done, of: None)
    tell(0, len(keys))
    for indices in _batches(keys, batch_size):
        ids = torch.tensor([list(keys[index]) for index in indices], device=model.device)
        with torch.inference_mode():
            rows = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=most_tokens
            )
        for index, row in zip(indices, rows[:, ids.shape[1] :].tolist(), strict=True):
            answers[index] = _up_to_stop(row, stops)
        tell(len(answers), len(keys))
    return [answers[index] for index in range(len(keys))]


def stock_tools(compute_dtype: str) -> str:
    """Tools and decoding, in one line for reports."""
    peft, transformers = (importlib.metadata.version(name) for name in ("peft", "transformers"))
    return f"stock PEFT {peft} + transformers {transformers}, greedy generate, {compute_dtype}"


def _batches(keys: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of keys that have one length, at most `batch_size` together."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        by_length[len(key)].append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def _up_to_stop(row: Sequence[int], stops: Sequence[int]) -> tuple[int, ...]:
    """The row without what fills it up behind its first end marker."""
    for position, token in enumerate(row):
        if token in stops:
            return tuple(row[: position + 1])
    return tuple(row)
