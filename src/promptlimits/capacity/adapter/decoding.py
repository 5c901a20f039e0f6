"""Decoding behind an adapter with stock PEFT and transformers, and without it: a fresh process.

    python -m promptlimits.capacity.adapter.decoding REQUEST.json

The request names the model, a folder that `ForeignAdapter.write` wrote, and the keys as token ids.
What PEFT would save for the adapter in this model is compared with what the folder holds, name by
name and shape by shape, before PEFT loads a number of it.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.base.files import JsonObject
from promptlimits.base.strict import Strict
from promptlimits.capacity.store.provenance import provenance
from promptlimits.capacity.witness.files import ADAPTER_FILE
from promptlimits.capacity.witness.fresh_process import (
    OnProgress,
    default_batch_size,
    nobody,
    report_to_parent,
    tell_progress,
)
from promptlimits.capacity.witness.stock import decode, require_stock_tools, stock_tools
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import PromptKind

if TYPE_CHECKING:
    from promptlimits.nets.load.stock import StockModel


class Request(Strict):
    """What is to be decoded."""

    adapter: str  # the folder
    model: str  # what stock tools load the model from
    model_hash: str  # of the model that the keys were read for
    compute_dtype: str  # what it computes with
    device: str  # Where
    allow_hub: bool  # whether the hub may be asked for the model
    trained_for: str  # the model that the adapter's maker names, for messages
    keys: tuple[tuple[int, ...], ...]  # token ids of each key
    most_tokens: int  # most tokens of an answer


class Decoded(Strict):
    """What was decoded."""

    answers: tuple[tuple[int, ...], ...]  # token ids behind the adapter, for each key
    texts: tuple[str, ...]  # those as text behind a key, the end marker left out
    bare: tuple[tuple[int, ...], ...]  # token ids without the adapter
    bare_texts: tuple[str, ...]  # those as text
    stops: tuple[int, ...]  # the end markers
    tools: str  # tools and decoding, in one line
    seconds: float  # how long it took, model loading included
    versions: dict[str, Any]  # provenance of the process


def decode_with_and_without(request: Request, *, on_progress: OnProgress = nobody) -> Decoded:
    """Decode every key behind the adapter and without it, with stock tools in this process."""
    from promptlimits.nets.load.network import quiet
    from promptlimits.nets.load.stock import decode_greedily, load_stock

    started = time.monotonic()
    stock = load_stock(
        request.model,
        dtype=getattr(torch, request.compute_dtype),
        device=request.device,
        allow_hub=request.allow_hub,
    )
    if stock.model_hash != request.model_hash:
        raise RunFailed(
            f"the model at {request.model} was changed while this ran", remedy="run it again"
        )
    stops = stock.stop_ids
    together = default_batch_size(request.compute_dtype)
    how: dict[str, Any] = {
        "stops": stops,
        "most_tokens": request.most_tokens,
        "batch_size": together,
    }
    decode_greedily(stock.model, stop_ids=stops)
    with quiet():
        both = 2 * len(request.keys)
        bare = decode(
            stock.model, request.keys, **how, on_progress=lambda done, _: on_progress(done, both)
        )
        model = _behind_adapter(stock, Path(request.adapter), trained_for=request.trained_for)
        answers = decode(
            model,
            request.keys,
            **how,
            on_progress=lambda done, _: on_progress(len(request.keys) + done, both),
        )
        texts, bare_texts = (_texts(stock, several, stops) for several in (answers, bare))
    return Decoded(
        answers=tuple(answers),
        texts=texts,
        bare=tuple(bare),
        bare_texts=bare_texts,
        stops=stops,
        tools=stock_tools(request.compute_dtype),
        seconds=round(time.monotonic() - started, 3),
        versions=provenance({"device": request.device, "batch_size": together}),
    )


def _behind_adapter(stock: StockModel, directory: Path, *, trained_for: str) -> Any:
    """The model with the adapter, loaded as `PeftModel.from_pretrained` loads it."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    config = PeftConfig.from_pretrained(os.fspath(directory))
    if config.is_prompt_learning:
        require_stock_tools((PromptKind.PREFIX if _in_cache(config) else PromptKind.SOFT,))
    held = {
        name: tuple(tensor.shape) for name, tensor in load_file(directory / ADAPTER_FILE).items()
    }
    _require_layout(stock, config, held, trained_for)
    try:
        model = get_peft_model(stock.model, config)
        saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise _unfit(f"one that PEFT cannot put into it ({_first_line(error)})", trained_for) from (
            error
        )
    expected = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    _require_same(held, expected, trained_for)
    model.load_adapter(
        os.fspath(directory), model.active_adapter, torch_device=str(stock.model.device)
    )
    return model.eval()


def _in_cache(config: Any) -> bool:
    """Whether the adapter's numbers stand in the cache, and not before the input."""
    return config.peft_type in ("PREFIX_TUNING", "CARTRIDGE")


def _require_layout(
    stock: StockModel, config: Any, held: Mapping[str, tuple[int, ...]], trained_for: str
) -> None:
    """Refuse an adapter of another model before PEFT makes room for it."""
    if not config.is_prompt_learning:
        modules = {name for name, _ in stock.model.named_modules()}
        absent = sorted(set(config.target_modules) - modules)
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise _unfit(f"numbers for {absent[0]}{more}, which it has not", trained_for)
    elif _in_cache(config):
        wanted = (config.num_layers, config.num_attention_heads, config.token_dim)
        try:
            shape = PrefixShape.of(stock.model)
        except UserError as error:
            raise _unfit(
                f"a prefix, which PEFT cannot put into {error.got}", trained_for
            ) from error
        if wanted != (shape.layers, shape.kv_heads, shape.token_dim):
            got = "keys and values for {} layers of {} heads, {} numbers together"
            raise _unfit(
                f"{got.format(*wanted)}; the model caches "
                f"{shape.layers} layers of {shape.kv_heads} heads, {shape.token_dim} numbers",
                trained_for,
            )
    else:
        from promptlimits.nets.load.checkpoint import width_of

        width = width_of(stock.model)
        if config.token_dim != width:
            raise _unfit(
                f"vectors of {config.token_dim} numbers; those of the model have {width}",
                trained_for,
            )


def _require_same(
    held: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], trained_for: str
) -> None:
    """Refuse a file that holds anything else than what PEFT would save from this model."""
    for name in sorted(held.keys() | expected.keys()):
        if held.get(name) != expected.get(name):
            here = f"{name} of shape {held[name]}" if name in held else f"no {name}"
            there = f"of {expected[name]}" if name in expected else "no such tensor"
            raise _unfit(f"{here}, where PEFT has {there}", trained_for)


def _unfit(got: str, trained_for: str) -> UserError:
    named = f" (its settings name {trained_for})" if trained_for else ""
    return UserError(
        "the adapter",
        "fit the model",
        got=got,
        remedy=f"give the model that it was trained for{named}",
    )


def _texts(
    stock: StockModel, answers: Iterable[tuple[int, ...]], stops: Sequence[int]
) -> tuple[str, ...]:
    from promptlimits.nets.load.spelling import Spelling

    spelling = Spelling(stock.tokenizer)
    said = (ids[:-1] if ids and ids[-1] in stops else ids for ids in answers)
    return tuple(spelling.behind(ids, special=False) for ids in said)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main(arguments: Sequence[str]) -> int:
    """The fresh process: decode what a request says and write one line of JSON."""
    (path,) = arguments
    request = Request.model_validate_json(Path(path).read_text(encoding="utf-8"))

    def decoded() -> JsonObject:
        tell = tell_progress(sys.stdout)
        return {"decoded": decode_with_and_without(request, on_progress=tell).to_json()}

    return report_to_parent(decoded)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(sys.argv[1:]))
