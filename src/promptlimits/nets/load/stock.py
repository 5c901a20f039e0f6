"""A model exactly as a stock user loads it, for checking what was found with faster code.

Nothing of this package's own attention, packing or caching is on this path: the network has
the attention that transformers chooses, and `generate` is transformers' own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from promptlimits.base.errors import UserError
from promptlimits.nets.files.hashing import model_hash
from promptlimits.nets.load.cached_decoding import decodes_from_cache
from promptlimits.nets.load.checkpoint import (
    read_config,
    read_tokenizer,
    read_weight_files,
)
from promptlimits.nets.load.end_ids import named_end_ids
from promptlimits.nets.load.locate import locate
from promptlimits.nets.load.network import readable, require_device
from promptlimits.nets.load.quiet import quiet
from promptlimits.nets.load.size import require_size


@dataclass(frozen=True, kw_only=True, eq=False)
class StockModel:
    """A model as stock tools load it.

    Attributes:
        model: The network, in evaluation mode, with its default attention.
        tokenizer: Its tokenizer.
        name: Short name for people.
        source: Where it came from: the catalog, the hub, or the path as it was given.
        model_hash: SHA-256 over its weights, configuration, tokenizer and end markers.
        context_length: Most tokens of one sequence; None where its configuration has no limit.
        stop_ids: Tokens at which its own `generate` stops.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    model_hash: str
    context_length: int | None
    stop_ids: tuple[int, ...]


def load_stock(
    reference: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    allow_hub: bool = True,
    allow_local: bool = True,
) -> StockModel:
    """Load a model with stock tools only."""
    require_device(device)
    found = locate(reference, allow_hub=allow_hub, allow_local=allow_local)
    directory = found.directory
    name = f"model {found.name}"
    with quiet():
        config = read_config(directory, name=name)
        files = read_weight_files(directory, name=name)
        require_size(config, sum(files.values()), name=name, dtype=dtype)
        with ThreadPoolExecutor(max_workers=1) as pool:
            hashing = pool.submit(model_hash, tuple(files))
            model = _read(directory, name=name, dtype=dtype).to(device).eval()
            digest = hashing.result()
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        tokenizer = read_tokenizer(directory, name=name, vocabulary=vocabulary)
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return StockModel(
        model=model,
        tokenizer=tokenizer,
        name=found.name,
        source=found.source,
        model_hash=digest,
        context_length=length if isinstance(length, int) else None,
        stop_ids=named_end_ids(model, vocabulary=vocabulary, name=name),
    )


def decode_greedily(model: PreTrainedModel, *, stop_ids: tuple[int, ...]) -> None:
    """Have `generate` take the most likely token each time and stop at `stop_ids` only.

    Some models come with penalties, sampling or a cache of their own choice in their
    generation_config.json; with those the output is not the model's most likely answer. A cache
    is kept where a step from it gives what the whole text gives (`decodes_from_cache`).
    """
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=decodes_from_cache(model),
        eos_token_id=list(stop_ids),
        pad_token_id=stop_ids[0],
    )


def _read(directory: Path, *, name: str, dtype: torch.dtype) -> PreTrainedModel:
    with readable(name, "be readable by transformers", remedy="download it again"):
        model, info = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    if info["missing_keys"]:  # filled with random numbers by transformers
        raise UserError(
            name,
            "hold every weight of its architecture",
            got=f"{len(info['missing_keys'])} missing",
            remedy="download it again",
        )
    network: PreTrainedModel = model
    return network
