"""Checks on a model directory before torch reads a weight: what it is, and whether it is whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from promptlimits.base.errors import UserError
from promptlimits.nets.files.folder import read_object, require_model_folder
from promptlimits.nets.files.hashing import weight_files
from promptlimits.nets.files.safetensors_file import read_header
from promptlimits.nets.load.network import readable

_MEND_CONFIG: Final = "mend that setting, or get the model's own config.json"
_TOKENIZER_FILES: Final = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt", "tekken.json"),
)


def read_config(directory: Path, *, name: str) -> PretrainedConfig:
    """Read config.json and check that it describes a causal language model."""
    require_model_folder(directory, name=name)
    with readable(name, "have a readable config.json", remedy="download it again"):
        raw = read_object(directory / "config.json")
    _require_known_family(raw, name)
    with readable(name, "have a config.json that transformers reads", remedy=_MEND_CONFIG):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    _require_causal(config, name)
    return config


def _require_known_family(raw: dict[str, Any], name: str) -> None:
    family = raw.get("model_type")
    if isinstance(family, str) and family in CONFIG_MAPPING_NAMES:
        return
    if raw.get("auto_map"):
        raise UserError(
            name,
            "be of an architecture that transformers knows",
            got=f"{family!r}, which needs code of its own to be run",
            remedy="use a model without remote code: it is never run here",
        )
    raise UserError(
        name,
        "be of an architecture that transformers knows",
        got=f"model_type {family!r}",
        remedy="correct model_type in config.json, or use another model",
    )


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


def read_weight_files(directory: Path, *, name: str) -> dict[Path, int]:
    """Find the weight files and check that each is whole, without reading a weight."""
    files = weight_files(directory)
    return {
        file: sum(math.prod(one.shape) for _, one in read_header(file, name=name)) for file in files
    }


def read_tokenizer(directory: Path, *, name: str, vocabulary: int) -> PreTrainedTokenizerBase:
    """Read the tokenizer and check that the model has an embedding for its tokens."""
    # Without its files transformers makes an empty tokenizer and says nothing.
    if not any((directory / file).is_file() for file in _TOKENIZER_FILES):
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
