"""Loading a frozen causal language model, its tokenizer and what records say about it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import (
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from promptlimits.base.errors import UserError
from promptlimits.nets.files.cache import Progress, no_progress
from promptlimits.nets.load.checkpoint import (
    end_ids,
    read_config,
    read_tokenizer,
    vocabulary_of,
    width_of,
)
from promptlimits.nets.load.codec import HuggingFaceCodec
from promptlimits.nets.load.locate import locate
from promptlimits.nets.load.network import dtype_name, quiet, readable, skeleton
from promptlimits.nets.load.stock import decode_greedily, load_stock
from promptlimits.nets.protocol import ModelCard


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedParts:
    """A frozen model in parts."""

    model: PreTrainedModel  # the network, in evaluation mode, no weight trainable, eager attention
    tokenizer: PreTrainedTokenizerBase  # its stock tokenizer
    card: ModelCard  # what a record says about it
    codec: HuggingFaceCodec  # its text codec


def load_parts(
    reference: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    allow_hub: bool = True,
    on_progress: Progress = no_progress,
) -> LoadedParts:
    """Load a frozen causal language model.

    No pickle is opened and no code of a model is run.

    Args:
        reference: A catalog name, a directory, a GGUF file or a hub id.
        dtype: What it computes with.
        device: Where it runs.
        allow_hub: Whether the hub may be asked.
        on_progress: Told of downloads and conversions.

    Returns:
        The model in parts.

    Raises:
        UserError: There is no such model, or it is not a whole causal language model with its
            tokenizer.
    """
    stock = load_stock(
        reference,
        dtype=dtype,
        device=device,
        allow_hub=allow_hub,
        on_progress=on_progress,
        attn_implementation="eager",
    )
    name, model = f"model {stock.name}", stock.model.requires_grad_(False)
    codec = _codec(model, stock.tokenizer, stock.stop_ids)
    with quiet():
        _require_decoding(model, codec.end_id, name=name)
    text = model.config.get_text_config()
    card = ModelCard(
        name=stock.name,
        reference=reference,
        path=stock.located.path,
        model_hash=stock.model_hash,
        # parameters() yields a tied weight once.
        parameters=sum(weight.numel() for weight in model.parameters()),
        dim=_prompt_width(model, text, name=name),
        layers=int(text.num_hidden_layers),
        vocabulary=vocabulary_of(model),
        context_length=stock.context_length,
        compute_dtype=dtype_name(dtype),
        decodes_from_cache=bool(model.generation_config.use_cache),
        notes=stock.located.notes,
    )
    return LoadedParts(model=model, tokenizer=stock.tokenizer, card=card, codec=codec)


def load_codec(reference: str, *, allow_hub: bool = True) -> HuggingFaceCodec:
    """Load the text codec of a model without reading a weight."""
    found = locate(reference, allow_hub=allow_hub)
    name = f"model {found.name}"
    with quiet():
        # Rows of the embedding and end markers are the network's.
        model = skeleton(read_config(found.directory, name=name), name=name)
        if (found.directory / "generation_config.json").is_file():
            with readable(name, "have a readable generation_config.json", remedy="mend it"):
                model.generation_config = GenerationConfig.from_pretrained(found.directory)
        tokenizer = read_tokenizer(found.directory, name=name, vocabulary=vocabulary_of(model))
        return _codec(model, tokenizer, end_ids(model, tokenizer, name=name))


def _codec(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
) -> HuggingFaceCodec:
    """The codec whose end markers are the tokens at which stock `generate` stops."""
    vocabulary = vocabulary_of(model)
    return HuggingFaceCodec(tokenizer, ends[0], other_end_ids=ends[1:], vocabulary=vocabulary)


def _require_decoding(model: PreTrainedModel, end_id: int, *, name: str) -> None:
    """Refuse a model that stock `generate` does not decode: nothing found could be confirmed.

    Its generation settings are those of a verification from here on.
    """
    decode_greedily(model, stop_ids=(end_id,))
    taken = inspect.signature(model.forward).parameters
    for argument in ("inputs_embeds", "attention_mask"):
        if argument not in taken:
            raise UserError(
                name,
                f"take {argument}, which PEFT gives it",
                got=f"{model.config.model_type}, which takes none",
                remedy="use another model: what is found for it could not be confirmed",
            )
    key = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with (
        readable(name, "be decoded by transformers' own generate", remedy="use another model"),
        torch.inference_mode(),
    ):
        model.generate(input_ids=key, attention_mask=torch.ones_like(key), max_new_tokens=2)


def _prompt_width(model: PreTrainedModel, text: PretrainedConfig, *, name: str) -> int:
    """D: what the embedding gives, which must be what the first block takes."""
    width = width_of(model)
    if width != text.hidden_size:
        raise UserError(
            name,
            "have embeddings as wide as its hidden states",
            got=f"{width} and {text.hidden_size}",
            remedy="use another model: stock prompt tuning does not take this one either",
        )
    return width
