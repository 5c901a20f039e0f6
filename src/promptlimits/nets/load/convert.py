"""Converting what a catalog or a user has into the directory that stock tools load.

GGUF weights are dequantised to float32 once: reading SmolLM2 from GGUF takes half a minute,
from safetensors two seconds.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Final

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from promptlimits.base.errors import UserError
from promptlimits.base.files import open_regular
from promptlimits.nets.files.cache import Progress, no_progress
from promptlimits.nets.files.gguf_header import MAGIC, weights_in_header
from promptlimits.nets.load.network import read_network, readable
from promptlimits.nets.load.quiet import quiet
from promptlimits.nets.load.size import require_room, require_size

_PLAIN_TYPES: Final = frozenset({"F64", "F32", "F16", "BF16"})
# Keys that say where a file lay on the machine that converted it.
_MACHINE_KEYS: Final = ("_name_or_path", "_model_name_or_path", "name_or_path")
_MACHINE_TOKENIZER_KEYS: Final = (*_MACHINE_KEYS, "is_local", "local_files_only")


def gguf_note(path: Path, *, name: str) -> str:
    """Check that a GGUF file is whole and say how its weights are stored."""
    from gguf import GGUFReader  # a second to import, and only conversion needs it

    with readable(name, "be a GGUF file", remedy="download it again"), open_regular(path) as stream:
        magic = stream.read(len(MAGIC))
    if magic != MAGIC:
        raise UserError(
            name,
            "be a GGUF file",
            got=f"a file that starts with {magic!r}",
            remedy="give a .gguf file, or a directory with config.json and safetensors",
        )
    with readable(name, "be a whole GGUF file", remedy="download it again"):
        numbers = weights_in_header(path)
    require_room(numbers, name=name, dtype=torch.float32)
    with readable(name, "be a whole GGUF file", remedy="download it again"):
        reader = GGUFReader(path)
        split = reader.get_field("split.count")
        parts = int(split.contents()) if split else 1
        types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    if parts > 1:
        raise UserError(
            name,
            "be one GGUF file",
            got=f"one of {parts} parts",
            remedy="join them with llama.cpp's gguf-split --merge",
        )
    quantised = [kind for kind, _ in types.most_common() if kind not in _PLAIN_TYPES]
    stored = quantised[0] if quantised else types.most_common(1)[0][0] if types else "no"
    return f"{stored} weights {'dequantised' if quantised else 'converted'} to float32"


def convert_gguf(
    gguf: Path, directory: Path, *, name: str, on_progress: Progress = no_progress
) -> None:
    """Write a GGUF file as a float32 safetensors directory with its tokenizer."""
    gguf_note(gguf, name=name)
    on_progress(f"converting {name} to float32 safetensors, once (half a minute or more)")
    with quiet():
        with readable(name, "hold the settings of a network", remedy="download it again"):
            config = AutoConfig.from_pretrained(
                gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
            )
        require_size(config, weights_in_header(gguf), name=name, dtype=torch.float32)
        model = read_network(gguf.parent, name=name, dtype=torch.float32, gguf_file=gguf.name)
        with readable(
            name, "hold a tokenizer that transformers reads", remedy="use a safetensors directory"
        ):
            tokenizer = AutoTokenizer.from_pretrained(
                gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
            )
    # The weights are plain float32 now, but the model still calls itself quantised.
    model.hf_quantizer = None
    model._is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    _save(model, tokenizer, directory, name=name)


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path, *, name: str
) -> None:
    with quiet(), readable(name, "be writable as safetensors", remedy="report this model"):
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    _drop_keys(directory / "config.json", _MACHINE_KEYS)
    _drop_keys(directory / "tokenizer_config.json", _MACHINE_TOKENIZER_KEYS)


def _drop_keys(path: Path, keys: tuple[str, ...]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in content.items() if key not in keys}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
