"""Verifying a witness with stock tools: what this confirms is the floor, and nothing else is.

Stock transformers loads the model, stock PEFT loads the prompt, stock `generate` decodes
greedily, running free: its own tokens are its input, so one wrong token is a wrong answer.
The tokens are compared with the recorded ones exactly, end marker included (but for the
beginning of a text, of which so many tokens are decoded and no more), and those with the texts
they are said to stand for (`answer_check`). Nothing that training used (shared prefix, packing,
its attention) is on this path, and `verify_in_fresh_process` leaves not even its memory behind.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.typing import JsonObject
from promptlimits.base.writing import standing
from promptlimits.capacity.store.provenance import provenance
from promptlimits.capacity.store.records import now
from promptlimits.capacity.witness.answer_check import check_answer, stop_ids
from promptlimits.capacity.witness.decoding import decode, stock_tools
from promptlimits.capacity.witness.format import (
    Witness,
    WitnessPair,
    read_prompt,
    read_witness,
    save_witness,
)
from promptlimits.capacity.witness.fresh_process import (
    OnProgress,
    confirm,
    default_batch_size,
    nobody,
    report_to_parent,
    reported,
    tell_progress,
    verify_in_fresh_process,
)
from promptlimits.capacity.witness.model import load_model_of
from promptlimits.capacity.witness.stock_check import require_stock_tools
from promptlimits.capacity.witness.verification import ModelUsed, Verification
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import PromptKind

if TYPE_CHECKING:
    from promptlimits.nets.load.stock import StockModel

__all__ = ["confirm", "save_witness", "verify_in_fresh_process", "verify_witness"]


def verify_witness(
    directory: Path,
    *,
    model_path: str | None = None,
    any_weights: bool = False,
    batch_size: int | None = None,
    device: str = "cpu",
    allow_hub: bool = True,
    on_progress: OnProgress = nobody,
) -> Verification:
    """Decode a witness with stock tools in this process and compare every pair."""
    from promptlimits.nets.load.quiet import quiet

    started = time.monotonic()
    witness = read_witness(directory)
    prompt = read_prompt(directory, witness)
    require_stock_tools((PromptKind(witness.kind),))
    stock = load_model_of(
        witness, model_path, any_weights=any_weights, device=device, allow_hub=allow_hub
    )
    _require_room(stock, prompt, witness)
    stops = stop_ids(stock)
    together = batch_size or default_batch_size(witness.model.compute_dtype)
    with quiet():
        generated = _generate(
            stock, directory, witness.pairs, stops, batch_size=together, on_progress=on_progress
        )
        as_text = witness.posed_as == "text"
        answers = tuple(
            check_answer(
                stock.tokenizer,
                pair,
                ids,
                stops=stops,
                posed_as_text=as_text,
                beginning=witness.beginning,
            )
            for pair, ids in zip(witness.pairs, generated, strict=True)
        )
    return Verification(
        answers=answers,
        confirmed_by=stock_tools(witness.model.compute_dtype),
        prompt_sha256=witness.prompt_sha256,
        model_hash=stock.model_hash,
        same_weights=stock.model_hash == witness.model.model_hash,
        created=now(),
        seconds=round(time.monotonic() - started, 3),
        versions=provenance({"device": device, "batch_size": together}),
        model=ModelUsed(name=stock.name, hash=stock.model_hash, source=stock.source),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The fresh process: verify one witness and write one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m promptlimits.capacity.witness.witness")
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--model")
    parser.add_argument("--any-weights", action="store_true")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="kept for clarity: output is JSON")
    given = parser.parse_args(arguments)

    def verified() -> JsonObject:
        verification = verify_witness(
            given.directory,
            model_path=given.model,
            any_weights=given.any_weights,
            batch_size=given.batch_size,
            device=given.device,
            on_progress=tell_progress(sys.stderr),
        )
        return reported(verification)

    return report_to_parent(verified)


def _require_room(stock: StockModel, prompt: Tensor, witness: Witness) -> None:
    """Refuse a model that is too narrow or reads too few tokens, before it fails obscurely."""
    _require_width(stock, prompt, witness)
    most = max(
        max(*pair.key_ids, *pair.value_ids, *(i for also in pair.also for i in also.value_ids))
        for pair in witness.pairs
    )
    rows = stock.model.get_input_embeddings().weight.shape[0]
    if most >= rows:
        raise UserError(
            "model",
            f"have an embedding for every token of the pairs (the largest is {most})",
            got=f"{rows} embeddings",
            remedy="give the model the witness was found with",
        )
    longest = prompt.shape[0] + max(
        len(pair.key_ids) + _longest_answer(witness.pairs) for pair in witness.pairs
    )
    if longest > stock.context_length:
        raise UserError(
            "model",
            f"read {longest} tokens, as prompt and longest pair need",
            got=f"one that reads {stock.context_length}",
            remedy="give the model the witness was found with",
        )


def _require_width(stock: StockModel, prompt: Tensor, witness: Witness) -> None:
    """Refuse a model whose prompts are laid out otherwise: PEFT would take any numbers."""
    if witness.prefix_shape is not None:
        wanted, found = witness.prefix_shape, PrefixShape.of(stock.model)
        rule = f"cache {_cached(wanted)}, as the prefix does"
        got: object = _cached(found)
        fits = wanted == found
    else:
        embedding = stock.model.get_input_embeddings()
        token = torch.zeros(1, dtype=torch.long, device=stock.model.device)
        got = int(embedding(token).shape[-1])
        rule = f"have a width of {prompt.shape[1]}, as the prompt has"
        fits = got == prompt.shape[1]
    if not fits:
        raise UserError("model", rule, got=got, remedy="give the model the witness was found with")


def _cached(shape: PrefixShape) -> str:
    return f"{shape.layers} layers of {shape.kv_heads} heads of width {shape.head_dim}"


def _longest_answer(pairs: Iterable[WitnessPair]) -> int:
    return max(pair.longest_answer for pair in pairs)


def _generate(
    stock: StockModel,
    directory: Path,
    pairs: Sequence[WitnessPair],
    stops: tuple[int, ...],
    *,
    batch_size: int,
    on_progress: OnProgress,
) -> list[tuple[int, ...]]:
    """What stock `generate` answers to each key, up to the first end marker."""
    from peft import PeftModel

    from promptlimits.nets.load.stock import decode_greedily

    decode_greedily(stock.model, stop_ids=stops)
    model = PeftModel.from_pretrained(stock.model, os.fspath(standing(directory)))
    model.eval()
    return decode(
        model,
        [pair.key_ids for pair in pairs],
        stops=stops,
        most_tokens=_longest_answer(pairs),
        batch_size=batch_size,
        on_progress=on_progress,
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
