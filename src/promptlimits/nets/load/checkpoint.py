"""A model's directory, checked before torch reads a weight, then read as transformers reads it."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from promptlimits.base.errors import UserError
from promptlimits.nets.files.folder import (
    TOKENIZER_FILES,
    model_hash,
    read_object,
    require_model_folder,
    weight_files,
)
from promptlimits.nets.files.safetensors_file import read_header
from promptlimits.nets.load.network import MEND_CONFIG, quiet, read_network, readable, require_size


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a directory holds."""

    config: PretrainedConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    model_hash: str


def read_checkpoint(
    directory: Path, *, name: str, dtype: torch.dtype, **options: Any
) -> Checkpoint:
    """Read a causal language model and its tokenizer; `options` are those of `read_network`."""
    with quiet():
        config = read_config(directory, name=name)
        files = weight_files(directory)
        held = [math.prod(one.shape) for file in files for _, one in read_header(file, name=name)]
        require_size(config, sum(held), name=name, dtype=dtype)
        # Hashing gives up the interpreter lock: beside reading, it costs no time.
        with ThreadPoolExecutor(max_workers=1) as pool:
            hashing = pool.submit(model_hash, files)
            model = read_network(directory, name=name, dtype=dtype, **options)
            digest = hashing.result()
        tokenizer = read_tokenizer(directory, name=name, vocabulary=vocabulary_of(model))
    return Checkpoint(config=config, model=model, tokenizer=tokenizer, model_hash=digest)


def read_config(directory: Path, *, name: str) -> PretrainedConfig:
    """Read config.json and check that it describes a causal language model."""
    require_model_folder(directory, name=name)
    with readable(name, "have a readable config.json", remedy="download it again"):
        raw = read_object(directory / "config.json")
    _require_known_family(raw, name)
    with readable(name, "have a config.json that transformers reads", remedy=MEND_CONFIG):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    _require_causal(config, name)
    return config


def _require_known_family(raw: dict[str, Any], name: str) -> None:
    family = raw.get("model_type")
    if isinstance(family, str) and family in CONFIG_MAPPING_NAMES:
        return
    got, remedy = (
        f"model_type {family!r}",
        "correct model_type in config.json, or use another model",
    )
    if raw.get("auto_map"):
        got = f"{family!r}, which needs code of its own to be run"
        remedy = "use a model without remote code: it is never run here"
    raise UserError(name, "be of an architecture that transformers knows", got=got, remedy=remedy)


def _require_causal(config: PretrainedConfig, name: str) -> None:
    family = config.model_type
    # These families have a causal class too, for use as the decoder of something else.
    encoder = family in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        config, "is_decoder", False
    )
    if config.is_encoder_decoder:
        got = f"{family}, an encoder-decoder"
    elif encoder:
        got = f"{family}, an encoder that sees both sides of a token"
    elif family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        got = f"{family}, which has no head that predicts the next token"
    else:
        return
    raise UserError(
        name,
        "be a causal language model",
        got=got,
        remedy="use a decoder such as GPT-2, Llama or Gemma: the limits here are about a prompt "
        "that the generated tokens follow",
    )


def read_tokenizer(directory: Path, *, name: str, vocabulary: int) -> PreTrainedTokenizerBase:
    """Read the tokenizer and check that the model has an embedding for its tokens."""
    # Without its files transformers makes an empty tokenizer and says nothing.
    if not any((directory / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(
            name,
            "hold its tokenizer",
            got="a directory without tokenizer.json",
            remedy="save the tokenizer there too: tokenizer.save_pretrained(directory)",
        )
    with readable(name, "have a tokenizer that transformers reads", remedy="download it again"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        tokenizer("a")  # some settings are looked at only when it is used
        tokens = set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder)
    highest = max(tokens, default=-1)
    if not 0 <= highest < vocabulary:
        raise UserError(
            name,
            f"have a tokenizer with at most {vocabulary} tokens, as its embedding has rows",
            got=f"token id {highest}" if tokens else "an empty tokenizer",
            remedy="use the tokenizer the model was trained with",
        )
    return tokenizer


def vocabulary_of(model: PreTrainedModel) -> int:
    """V, rows of the embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


@torch.no_grad()
def width_of(model: PreTrainedModel) -> int:
    """D, numbers that the embedding gives for a token."""
    token = torch.zeros(1, dtype=torch.long, device=model.device)
    return int(model.get_input_embeddings()(token).shape[-1])


def end_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str
) -> tuple[int, ...]:
    """The tokens at which stock `generate` stops: the model's own that its vocabulary has.

    A model may name several: any of them stops it, the first is what values end in. Some name one
    outside of the vocabulary (50256 of 33, say). Where none is in it: the tokenizer's own end or
    separator.
    """
    named = model.generation_config.eos_token_id if model.generation_config else None
    several = named if isinstance(named, list) else [named]
    if any(one is not None and type(one) is not int for one in several):
        raise UserError(
            f"eos_token_id in generation_config.json or config.json of {name}",
            "be a whole number or a list of them",
            got=repr(named),
            remedy="write the number that its tokenizer gives the end marker",
        )
    known = range(vocabulary_of(model))
    own = (tokenizer.eos_token_id, tokenizer.sep_token_id)
    found = [one for one in several if one in known] or [one for one in own if one in known][:1]
    if not found:
        raise UserError(
            name,
            "have an end marker in its vocabulary",
            got=f"eos_token_id {named}",
            remedy="set eos_token_id in its generation_config.json",
        )
    return tuple(map(int, found))
