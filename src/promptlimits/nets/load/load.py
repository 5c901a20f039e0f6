"""Loading a frozen causal language model, its tokenizer and what records say about it."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from promptlimits.base.errors import UserError
from promptlimits.nets.files.cache import Progress, no_progress
from promptlimits.nets.files.hashing import model_hash
from promptlimits.nets.load.checkpoint import (
    read_config,
    read_tokenizer,
    read_weight_files,
)
from promptlimits.nets.load.codec import HuggingFaceCodec
from promptlimits.nets.load.end_ids import named_end_ids
from promptlimits.nets.load.locate import Located, locate
from promptlimits.nets.load.network import read_network, readable, require_device
from promptlimits.nets.load.quiet import quiet
from promptlimits.nets.load.size import require_size
from promptlimits.nets.load.stock import decode_greedily
from promptlimits.nets.protocol import NO_LIMIT, ModelCard

_LENGTH_KEYS: Final = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"),
    *("max_sequence_length", "max_seq_length", "model_max_length"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedParts:
    """A frozen model in parts.

    Attributes:
        model: The network, in evaluation mode, no weight trainable, eager attention.
        tokenizer: Its stock tokenizer.
        card: What a record says about it.
        codec: Its text codec.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    card: ModelCard
    codec: HuggingFaceCodec


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
    require_device(device)
    found = locate(reference, allow_hub=allow_hub, on_progress=on_progress)
    name = f"model {found.name}"
    with quiet():
        config = read_config(found.directory, name=name)
        files = read_weight_files(found.directory, name=name)
        require_size(config, sum(files.values()), name=name, dtype=dtype)
        # Hashing gives up the interpreter lock: beside reading, it costs no time.
        with ThreadPoolExecutor(max_workers=1) as pool:
            hashing = pool.submit(model_hash, tuple(files))
            model = read_network(found.directory, name=name, dtype=dtype)
            digest = hashing.result()
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        tokenizer = read_tokenizer(found.directory, name=name, vocabulary=vocabulary)
        model = model.to(device).eval().requires_grad_(False)
        end_id, *others = _end_ids(model, tokenizer, vocabulary=vocabulary, name=name)
        _require_decoding(model, end_id, name=name)
    codec = HuggingFaceCodec(tokenizer, end_id, other_end_ids=others, vocabulary=vocabulary)
    card = _card(
        model,
        config,
        found,
        reference=reference,
        model_hash=digest,
        dtype=dtype,
    )
    return LoadedParts(model=model, tokenizer=tokenizer, card=card, codec=codec)


def load_codec(
    reference: str, *, allow_hub: bool = True, on_progress: Progress = no_progress
) -> HuggingFaceCodec:
    """Load the text codec of a model without reading a weight."""
    found = locate(reference, allow_hub=allow_hub, on_progress=on_progress)
    name = f"model {found.name}"
    with quiet():
        config = read_config(found.directory, name=name)
        # Rows of the embedding and end markers are the network's; on this device it has no numbers.
        with (
            readable(name, "have a config.json that describes a network", remedy="mend it"),
            torch.device("meta"),
        ):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        if (found.directory / "generation_config.json").is_file():
            with readable(name, "have a readable generation_config.json", remedy="mend it"):
                model.generation_config = GenerationConfig.from_pretrained(found.directory)
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        tokenizer = read_tokenizer(found.directory, name=name, vocabulary=vocabulary)
    end_id, *others = _end_ids(model, tokenizer, vocabulary=vocabulary, name=name)
    return HuggingFaceCodec(tokenizer, end_id, other_end_ids=others, vocabulary=vocabulary)


def _card(
    model: PreTrainedModel,
    config: PretrainedConfig,
    found: Located,
    *,
    reference: str,
    model_hash: str,
    dtype: torch.dtype,
) -> ModelCard:
    text = config.get_text_config()
    name = f"model {found.name}"
    return ModelCard(
        name=found.name,
        reference=reference,
        path=found.path,
        model_hash=model_hash,
        # parameters() yields a tied weight once.
        parameters=sum(weight.numel() for weight in model.parameters()),
        dim=_prompt_width(model, text, name=name),
        layers=int(text.num_hidden_layers),
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        context_length=_context_length(text),
        compute_dtype=str(dtype).removeprefix("torch."),
        decodes_from_cache=bool(model.generation_config.use_cache),
        notes=found.notes,
    )


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
    embedding = model.get_input_embeddings()
    with torch.no_grad():
        width = int(embedding(torch.zeros(1, dtype=torch.long, device=model.device)).shape[-1])
    if width != text.hidden_size:
        raise UserError(
            name,
            "have embeddings as wide as its hidden states",
            got=f"{width} and {text.hidden_size}",
            remedy="use another model: stock prompt tuning does not take this one either",
        )
    return width


def _context_length(text: PretrainedConfig) -> int:
    """Most tokens of one sequence; `NO_LIMIT` of a family whose positions end nowhere."""
    rotary = getattr(text, "rope_parameters", None) or {}
    lengths = (getattr(text, key, None) for key in _LENGTH_KEYS)
    length = next((one for one in lengths if isinstance(one, int) and one > 0), NO_LIMIT)
    if rotary.get("rope_type") != "longrope":
        return length
    # Past this length all positions turn otherwise, those already in a cache as well.
    return int(min(length, rotary.get("original_max_position_embeddings", length)))


def _end_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, vocabulary: int, name: str
) -> tuple[int, ...]:
    """The tokens at which stock `generate` stops.

    A model may name several; any of them stops it, the first is what values end in. Where none is
    in its vocabulary: the tokenizer's own end or separator.
    """
    named = named_end_ids(model, vocabulary=vocabulary, name=name)
    if named:
        return named
    for candidate in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if candidate is not None and 0 <= candidate < vocabulary:
            return (int(candidate),)
    raise UserError(
        name,
        "have an end marker in its vocabulary",
        got=f"eos_token_id {getattr(model.generation_config, 'eos_token_id', None)}",
        remedy="set eos_token_id in its generation_config.json",
    )
