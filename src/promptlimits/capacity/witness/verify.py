"""Verifying a witness with stock tools: what this confirms is the floor, and nothing else is.

Stock transformers loads the model, stock PEFT loads the prompt, stock `generate` decodes
greedily, running free: its own tokens are its input, so one wrong token is a wrong answer.
The tokens are compared with the recorded ones exactly, end marker included (but for the
beginning of a text, of which so many tokens are decoded and no more), and those with the texts
they are said to stand for (`answer_check`). Nothing that training used (shared prefix, packing,
its attention) is on this path, and `verify_in_fresh_process` leaves not even its memory behind.

A witness may come from anybody. What it calls its model is a catalog name or a hub id, never a
path: a path would lead to whatever lies there on the reader's machine. And one that calls its model
by a catalog name must have been found with the weights of that name.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, standing
from promptlimits.capacity.store.provenance import provenance
from promptlimits.capacity.store.records import now
from promptlimits.capacity.witness.answer_check import check_answer
from promptlimits.capacity.witness.format import Witness, WitnessPair, read_prompt, read_witness
from promptlimits.capacity.witness.fresh_process import (
    OnProgress,
    default_batch_size,
    nobody,
    report_to_parent,
    reported,
    tell_progress,
)
from promptlimits.capacity.witness.stock import decode, require_stock_tools, stock_tools
from promptlimits.capacity.witness.verification import ModelUsed, Verification
from promptlimits.nets.files.cache import built
from promptlimits.nets.files.catalog import CatalogEntry, find_entry
from promptlimits.nets.files.folder import model_hash, weight_files
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import PromptKind

if TYPE_CHECKING:
    from promptlimits.nets.load.stock import StockModel

Load: TypeAlias = "Callable[..., StockModel]"
"""Takes what `load_stock` takes."""

_OWN_MODEL: Final = "give the model the witness was found with"


def verify_witness(
    directory: Path,
    *,
    model_path: str | None = None,
    any_weights: bool = False,
    batch_size: int | None = None,
    device: str = "cpu",
    allow_hub: bool = True,
    on_progress: OnProgress = nobody,
    load: Load | None = None,
) -> Verification:
    """Decode a witness with stock tools in this process and compare every pair.

    `load` is `load_stock`, or one that remembers what it loaded last.
    """
    from promptlimits.nets.load.network import quiet

    started = time.monotonic()
    witness = read_witness(directory)
    prompt = read_prompt(directory, witness)
    require_stock_tools((PromptKind(witness.kind),))
    stock = _model_of(
        witness, model_path, any_weights=any_weights, device=device, allow_hub=allow_hub, load=load
    )
    _require_room(stock, prompt, witness)
    stops = stock.stop_ids
    together = batch_size or default_batch_size(witness.model.compute_dtype)
    with quiet():
        generated = _generate(
            stock, directory, witness.pairs, stops, batch_size=together, on_progress=on_progress
        )
        answers = tuple(
            check_answer(
                stock.tokenizer,
                pair,
                ids,
                stops=stops,
                keys_as_text=witness.keys_as == "text",
                beginning=witness.beginning,
            )
            for pair, ids in zip(witness.pairs, generated, strict=True)
        )
    return Verification(
        pairs_exact=sum(answer.exact for answer in answers),
        of=len(answers),
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


def main(arguments: Sequence[str]) -> int:
    """The fresh process: answer the requests of standard input, a line of JSON each.

    An argument, in JSON too, says what model to load ahead. Where standard input ends, the process
    that asks is gone, and this one ends at once, whatever it does.
    """
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            requests.put(line)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    serve(iter(requests.get, None), ahead=arguments[0] if arguments else None)
    return 0


def serve(requests: Iterable[str], *, ahead: str | None = None) -> None:
    """Verify the witnesses that requests name, each with a line of its own; load one model once."""
    from promptlimits.nets.load.stock import load_stock

    load: Load = functools.lru_cache(maxsize=1)(load_stock)
    if ahead is not None:
        _load_ahead(load, **json.loads(ahead))
    for request in requests:
        asked: dict[str, Any] = json.loads(request)

        def verified(asked: dict[str, Any] = asked) -> JsonObject:
            tell = tell_progress(sys.stdout)
            directory = Path(asked.pop("directory"))
            return reported(verify_witness(directory, **asked, load=load, on_progress=tell))

        report_to_parent(verified)


def _load_ahead(load: Load, *, model_path: str, compute_dtype: str, device: str) -> None:
    """Do what every witness of a model needs; what fails here fails again, and is told, there."""
    import peft  # noqa: F401 - so that it is there

    with suppress(Exception):
        dtype = getattr(torch, compute_dtype)
        load(model_path, dtype=dtype, device=device, allow_hub=True)


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
            remedy=_OWN_MODEL,
        )
    longest_answer = max(pair.longest_answer for pair in witness.pairs)
    longest = prompt.shape[0] + longest_answer + max(len(pair.key_ids) for pair in witness.pairs)
    if longest > stock.context_length:
        raise UserError(
            "model",
            f"read {longest} tokens, as prompt and longest pair need",
            got=f"one that reads {stock.context_length}",
            remedy=_OWN_MODEL,
        )


def _require_width(stock: StockModel, prompt: Tensor, witness: Witness) -> None:
    """Refuse a model whose prompts are laid out otherwise: PEFT would take any numbers."""
    if witness.prefix_shape is not None:
        wanted, found = witness.prefix_shape, PrefixShape.of(stock.model)
        rule = f"cache {_cached(wanted)}, as the prefix does"
        got: object = _cached(found)
        fits = wanted == found
    else:
        from promptlimits.nets.load.checkpoint import width_of

        got = width_of(stock.model)
        rule = f"have a width of {prompt.shape[1]}, as the prompt has"
        fits = got == prompt.shape[1]
    if not fits:
        raise UserError("model", rule, got=got, remedy=_OWN_MODEL)


def _cached(shape: PrefixShape) -> str:
    return f"{shape.layers} layers of {shape.kv_heads} heads of width {shape.head_dim}"


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
        most_tokens=max(pair.longest_answer for pair in pairs),
        batch_size=batch_size,
        on_progress=on_progress,
    )


def _model_of(
    witness: Witness,
    model_path: str | None,
    *,
    any_weights: bool,
    device: str,
    allow_hub: bool,
    load: Load | None,
) -> StockModel:
    """Load the model of a witness with stock tools, and refuse one that is not its own."""
    stock = _load(witness, model_path, device=device, allow_hub=allow_hub, load=load)
    if any_weights:
        return stock
    for entry in filter(None, map(find_entry, {witness.model.reference, witness.model.name})):
        _require_catalog_weights(witness, entry, stock)
    if stock.model_hash != witness.model.model_hash:
        raise UserError(
            "model",
            f"have the weights of the witness ({_short(witness.model.model_hash)})",
            got=_short(stock.model_hash),
            remedy="give the model it was found with, or allow any weights (--any-weights)",
        )
    return stock


def _load(
    witness: Witness, model_path: str | None, *, device: str, allow_hub: bool, load: Load | None
) -> StockModel:
    from promptlimits.nets.load.locate import is_hub_id
    from promptlimits.nets.load.stock import load_stock

    load = load or load_stock
    dtype = getattr(torch, witness.model.compute_dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(
            "compute_dtype of the witness",
            "be a dtype of torch",
            got=witness.model.compute_dtype,
            remedy="make the witness again with promptlimits bracket",
        )
    if model_path is not None:
        return load(model_path, dtype=dtype, device=device, allow_hub=allow_hub)
    reference = witness.model.reference
    if find_entry(reference) is None and not is_hub_id(reference):
        raise UserError(
            "model of the witness",
            "be a catalog name or a hub id (org/name) where --model is not given",
            got=repr(reference),
            remedy="say where the model is with --model PATH",
        )
    try:
        return load(reference, dtype=dtype, device=device, allow_hub=allow_hub, allow_local=False)
    except UserError as error:
        raise UserError(
            "model of the witness",
            "be within reach",
            got=f"{reference!r}, which is not ({error})",
            remedy="say where it is with --model PATH",
        ) from error


def _require_catalog_weights(witness: Witness, entry: CatalogEntry, stock: StockModel) -> None:
    """Refuse a witness that gives other weights the name of a catalog model."""
    if (stock.name, stock.source) == (entry.name, "catalog"):
        known = stock.model_hash
    else:
        ready = built(entry.cache_name)
        if ready is None:
            raise UserError(
                f"catalog model {entry.name}, which the witness names,",
                "be on this machine, to be compared",
                got="none",
                remedy=f"run `promptlimits models get {entry.name}`, or allow any weights "
                "(--any-weights)",
            )
        known = model_hash(weight_files(ready))
    if known != witness.model.model_hash:
        raise UserError(
            f"witness that names the catalog's {entry.name}",
            f"be found with its weights ({_short(known)})",
            got=_short(witness.model.model_hash),
            remedy="ask its maker for the model, or see what any model answers (--any-weights)",
        )


def _short(digest: str) -> str:
    return f"{digest[:12]}..."


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(sys.argv[1:]))
