"""Greedy decoding by stock `generate`, and whether the installed tools do it as a prompt means.

Decoding runs free: its own tokens are its input. Keys of one length are decoded together, so no row
is padded (a prompt in front of left padding is a known fault of PEFT's format).

A floor is what stock tools confirm, so tools that do not fit each other confirm nothing: PEFT
0.21.2 looks for the cache under a name that transformers 5.24 no longer gives it, puts the prompt
in front of every decoded token anew, and says nothing. So before a search, and in `doctor`, a
small random network answers a few keys behind a random prompt, once by whole forward passes and
once as a witness is decoded. The answers must be the same.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from promptlimits.base.errors import UserError
from promptlimits.capacity.store.provenance import Installed, canonical_json, installed, pip_command
from promptlimits.capacity.witness.files import (
    ADAPTER_FILE,
    CONFIG_FILE,
    adapter_bytes,
    adapter_config,
)
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import PromptKind

KEYS: Final = ((7,), (12, 3), (9, 30), (5, 21, 16))
TOKENS: Final = 6
_PROMPT_TOKENS: Final = 3
_VOCABULARY: Final = 48
_SHAPE: Final = PrefixShape(layers=2, kv_heads=2, head_dim=4)
_NAMES: Final = {PromptKind.SOFT: "soft prompt", PromptKind.PREFIX: "KV prefix"}


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


@dataclass(frozen=True, kw_only=True)
class StockCheck:
    """How the installed tools decoded behind a prompt of one kind."""

    kind: PromptKind
    alike: int = 0  # keys answered as by whole forward passes
    error: str = ""  # what the tools raised; empty where they raised nothing

    @property
    def good(self) -> bool:
        """Whether every key was answered as it should be."""
        return self.alike == len(KEYS)

    @property
    def text(self) -> str:
        """What was seen, with the versions."""
        tools = " with ".join(f"{one.name} {one.version}" for one in _tools())
        seen = f"({self.error})" if self.error else ""
        return f"{self.alike} of {len(KEYS)} keys answered alike by {tools} {seen}".rstrip()

    @property
    def remedy(self) -> str:
        """What to do about it; empty where it is good."""
        if self.good:
            return ""
        tools = _tools()
        allowed = " and ".join(one.requirement for one in tools)
        if all(one.good for one in tools):
            return f"{allowed} are allowed, so this is a fault of promptlimits: report it"
        return f"allowed are {allowed}: {pip_command(tools)}"


def require_stock_tools(kinds: Iterable[PromptKind]) -> None:
    """Refuse to go on with tools that could not confirm what would be found."""
    for kind in kinds:
        check = check_stock_tools(kind)
        if not check.good:
            raise UserError(
                "peft and transformers",
                f"decode behind a {_NAMES[kind]} as whole forward passes of the model do",
                got=check.text,
                remedy=check.remedy,
            )


@functools.cache
def check_stock_tools(kind: PromptKind) -> StockCheck:
    """Have the installed tools decode behind a random prompt."""
    from promptlimits.nets.load.network import quiet

    try:
        with quiet():
            wanted, found = _both_ways(kind)
    except Exception as error:  # noqa: BLE001 - tools that do not fit may raise anything
        return StockCheck(kind=kind, error=f"{type(error).__name__}: {error}"[:200])
    return StockCheck(kind=kind, alike=sum(a == b for a, b in zip(wanted, found, strict=True)))


def _both_ways(kind: PromptKind) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """What the keys are answered: by whole forward passes, and as a witness is decoded."""
    from peft import PeftModel

    from promptlimits.nets.load.stock import decode_greedily, greedy, small_network

    network = small_network(vocabulary=_VOCABULARY, seed=0)
    shape = _SHAPE if kind is PromptKind.PREFIX else None
    width = network.config.hidden_size if shape is None else shape.width
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randn(_PROMPT_TOKENS, width, generator=generator)
    wanted = [
        greedy(network, key, tokens=TOKENS, prompt=prompt, prefix_shape=shape) for key in KEYS
    ]
    said = {token for answer in wanted for token in answer}
    # One that ends no answer, so that all tokens are compared.
    stops = (min(set(range(_VOCABULARY)) - said),)
    decode_greedily(network, stop_ids=stops)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, ADAPTER_FILE).write_bytes(adapter_bytes(prompt))
        config = adapter_config(
            prompt_tokens=_PROMPT_TOKENS, dim=width, reference="", prefix_shape=shape
        )
        Path(folder, CONFIG_FILE).write_text(canonical_json(config), encoding="utf-8")
        model = PeftModel.from_pretrained(network, os.fspath(folder)).eval()
    return wanted, decode(model, KEYS, stops=stops, most_tokens=TOKENS, batch_size=len(KEYS))


def _tools() -> tuple[Installed, ...]:
    return tuple(map(installed, ("peft", "transformers")))
