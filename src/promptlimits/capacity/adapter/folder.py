"""An adapter that others trained: read once, checked, and written anew for stock PEFT.

A folder from elsewhere is not trusted. Its two files are opened only if they are plain files of a
sensible size; pickles are not opened at all. PEFT loads every tensor of the file by its name, even
over the model's own weights, so a tensor that is not the adapter's own is refused. PEFT is given a
folder with these tensors and the settings of `adapter_settings`, never the folder it came from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, open_regular, read_regular
from promptlimits.capacity.adapter.settings import (
    AdapterKind,
    Settings,
    adapter_kind,
    kept_settings,
)
from promptlimits.capacity.witness.files import ADAPTER_FILE, CONFIG_FILE, TENSOR, json_bytes
from promptlimits.nets.prefix_shape import PrefixShape

MOST_CONFIG_BYTES: Final = 4_000_000
MOST_WEIGHT_BYTES: Final = 4_000_000_000
_MOST_HEADER_BYTES: Final = 100_000_000
_PICKLE: Final = "adapter_model.bin"
_CONVERT: Final = (
    'convert it where you trust it: python -c "import torch, safetensors.torch as s; s.save_file('
    f"torch.load('{_PICKLE}', weights_only=True), '{ADAPTER_FILE}')\""
)
_NAMED: Final = "give the folder that PEFT's save_pretrained wrote"
_OWN: Final = "save the adapter alone: save_pretrained(..., save_embedding_layers=False) of PEFT"
_PREFIX: Final = "base_model.model."
_LORA_PARTS: Final = (
    *("lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B"),
    "lora_magnitude_vector",
)
_PARTS: Final = {AdapterKind.LORA: _LORA_PARTS, AdapterKind.IA3: ("ia3_l",)}
_MODULE: Final = re.compile(r"[\w.]+", re.ASCII)


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeignAdapter:
    """An adapter as stock PEFT is given it."""

    kind: AdapterKind  # what it is
    settings: Settings  # the content of adapter_config.json, written anew
    tensors: Mapping[str, Tensor]  # all that its weight file holds
    sha256: str  # of the weight file as it came
    trained_for: str  # the model its maker names; empty if none. It is shown, never followed
    notes: tuple[str, ...]  # what a reader must know

    @property
    def prompt(self) -> Tensor | None:
        """(P, W) float32: the prompt; None where the adapter is none."""
        return self.tensors[TENSOR].to(torch.float32) if self.kind.is_prompt else None

    @property
    def virtual_tokens(self) -> int:
        """P, tokens that it puts in front of a key; 0 where it puts none."""
        return int(self.tensors[TENSOR].shape[0]) if self.kind.is_prompt else 0

    @property
    def prefix_shape(self) -> PrefixShape | None:
        """How a prefix is laid out; None where the adapter is none."""
        if not self.kind.is_prefix:
            return None
        heads, width = int(self.settings["num_attention_heads"]), int(self.settings["token_dim"])
        layers = int(self.settings["num_layers"])
        return PrefixShape(layers=layers, kv_heads=heads, head_dim=width // heads)

    @property
    def replaced(self) -> tuple[str, ...]:
        """Names of tensors that stand in place of the model's own."""
        if self.kind.is_prompt:
            return ()
        return tuple(name for name in self.tensors if _part_of(self.kind, name) is None)

    def write(self, directory: Path) -> None:
        """Write the folder that stock PEFT is given."""
        (directory / CONFIG_FILE).write_bytes(json_bytes(self.settings))
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        (directory / ADAPTER_FILE).write_bytes(save(tensors, metadata={"format": "pt"}))

    def to_json(self) -> JsonObject:
        """What a record says about it."""
        return {
            "kind": self.kind.value,
            "sha256": self.sha256,
            "virtual_tokens": self.virtual_tokens or None,
            "tensors": len(self.tensors),
            "numbers": sum(tensor.numel() for tensor in self.tensors.values()),
            "replaces": list(self.replaced),
            "trained_for": self.trained_for,
        }


def read_foreign_adapter(directory: Path) -> ForeignAdapter:
    """Read an adapter from a folder that is not trusted."""
    _require_folder(directory)
    found = _read_config(directory)
    where = str(directory / CONFIG_FILE)
    kind = adapter_kind(where, found)
    kept, notes = kept_settings(where, kind, found)
    content = _read_weights(directory)
    tensors = _tensors(directory / ADAPTER_FILE, content)
    settings = (
        _prompt_settings(directory, kind, kept, tensors)
        if kind.is_prompt
        else _module_settings(directory, kind, kept, tensors)
    )
    trained_for = found.get("base_model_name_or_path")
    return ForeignAdapter(
        kind=kind,
        settings=settings,
        tensors=tensors,
        sha256=hashlib.sha256(content).hexdigest(),
        trained_for=trained_for if isinstance(trained_for, str) else "",
        notes=notes,
    )


def _require_folder(directory: Path) -> None:
    """Refuse what holds no adapter, and say what it is instead."""
    if not directory.is_dir():
        raise UserError(
            str(directory),
            "be the folder of an adapter",
            got="a file" if directory.exists() else "nothing there",
            remedy="download an adapter of a hub first (hf download NAME --local-dir DIR)"
            if not directory.exists()
            else _NAMED,
        )
    if (directory / CONFIG_FILE).exists():
        return
    inner = sorted(path.parent.name for path in directory.glob(f"*/{CONFIG_FILE}"))
    is_model = (directory / "config.json").exists()
    remedy = f"name a folder in it: {inner[-1]}" if inner else _NAMED
    raise UserError(
        str(directory),
        f"hold {CONFIG_FILE}",
        got="a model (it has config.json)" if is_model and not inner else "a folder without it",
        remedy="name a model with --model" if is_model and not inner else remedy,
    )


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    try:
        document = json.loads(read_regular(path, at_most=MOST_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), "be JSON", got=f"{error}", remedy=_NAMED) from error
    except OSError as error:
        _cannot_be_read(path, error)
    if not isinstance(document, dict):
        raise UserError(str(path), "hold an object", got=type(document).__name__, remedy=_NAMED)
    return document


def _read_weights(directory: Path) -> bytes:
    path = directory / ADAPTER_FILE
    try:
        # A sparse file of zeros is found out before all of it is read.
        with open_regular(path, at_most=MOST_WEIGHT_BYTES) as stream:
            begins = stream.read(9)
        length = int.from_bytes(begins[:8], "little")
        if length > _MOST_HEADER_BYTES or begins[8:] != b"{":
            raise _no_safetensors(path, "another beginning")
        return read_regular(path, at_most=MOST_WEIGHT_BYTES)
    except FileNotFoundError:
        pickle = (directory / _PICKLE).exists()
        raise UserError(
            str(directory),
            f"hold {ADAPTER_FILE}",
            got=f"{_PICKLE}, a pickle, which can run any code" if pickle else "a folder without it",
            remedy=_CONVERT if pickle else _NAMED,
        ) from None
    except OSError as error:
        _cannot_be_read(path, error)


def _cannot_be_read(path: Path, error: OSError) -> NoReturn:
    raise UserError(
        str(path),
        "be a file that can be read",
        got=error.strerror or str(error),
        remedy="give a folder with plain files that you may read",
    ) from error


def _no_safetensors(path: Path, detail: str) -> UserError:
    return UserError(
        str(path),
        "be a safetensors file",
        got=f"one that is not ({detail})",
        remedy="download it again; where git left a pointer in its place, with git lfs pull",
    )


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file: floating, finite, and at least one."""
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _no_safetensors(path, str(error)) from error
    for name, tensor in tensors.items():
        known = tensor.dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        if not known or not bool(torch.isfinite(tensor).all()):
            raise UserError(
                str(path),
                "hold finite numbers of 16, 32 or 64 bits",
                got=f"{tensor.dtype} in {name}" if not known else f"others in {name}",
                remedy="save the adapter from a run that did not diverge, without quantisation",
            )
    return tensors


def _prompt_settings(
    directory: Path, kind: AdapterKind, kept: Settings, tensors: Mapping[str, Tensor]
) -> Settings:
    """Settings for a prompt, which must be those of the one tensor beside them."""
    shape = tuple(tensors[TENSOR].shape) if TENSOR in tensors else ()
    if len(tensors) != 1 or len(shape) != 2 or 0 in shape:
        raise UserError(
            str(directory / ADAPTER_FILE),
            f"hold one matrix {TENSOR} and nothing else, as {kind} does",
            got=_listed(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()),
            remedy=_OWN,
        )
    tokens, width = shape
    settings: Settings = {
        "peft_type": kind.value,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": tokens,
    }
    expected = {"num_virtual_tokens": tokens}
    if kind.is_prefix:
        names = ("num_layers", "num_attention_heads", "token_dim")
        missing = [name for name in names if name not in kept]
        if missing:
            _disagrees(directory, f"say {', '.join(names)}", f"no {', '.join(missing)}")
        settings |= {name: kept[name] for name in names}
        said = f"{kept['num_layers']} layers of {kept['token_dim']}"
        heads_fit = kept["token_dim"] % kept["num_attention_heads"] == 0
        if 2 * kept["num_layers"] * kept["token_dim"] != width or not heads_fit:
            _disagrees(directory, f"fit its tensor {shape}", said)
    else:
        settings["token_dim"] = width
        expected["token_dim"] = width
    for name, number in expected.items():
        if kept.get(name, number) != number:
            _disagrees(directory, f"fit its tensor {shape}", f"{name} {kept[name]}")
    if kind is AdapterKind.PROMPT_TUNING:
        settings["prompt_tuning_init"] = "RANDOM"
    if kind is AdapterKind.CARTRIDGE:
        # How many rows training left alone; all rows are put into the cache.
        settings["num_frozen_tokens"] = 0
    return settings


def _module_settings(
    directory: Path, kind: AdapterKind, kept: Settings, tensors: Mapping[str, Tensor]
) -> Settings:
    """Settings for LoRA and IA3: the modules are those that the file holds numbers for."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        own = _part_of(kind, name)
        if own is not None:
            modules.setdefault(own[0], {})[own[1]] = tensor
        elif not _is_declared(name, kept):
            raise UserError(
                str(directory / ADAPTER_FILE),
                f"hold tensors of {kind} only",
                got=f"{name}, which PEFT would load over a weight of the model",
                remedy=_OWN,
            )
    if not modules:
        raise UserError(
            str(directory / ADAPTER_FILE), f"hold tensors of {kind}", got="none", remedy=_NAMED
        )
    _require_targeted(directory, modules, kept.pop("target_modules", None))
    settings: Settings = {
        "peft_type": kind.value,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "target_modules": sorted(modules),
        **kept,
    }
    if kind is AdapterKind.LORA:
        _require_ranks(directory, modules, settings)
    else:
        # Scales of what goes into a feedforward layer lie, those of what comes out stand.
        settings["feedforward_modules"] = sorted(
            name for name, parts in modules.items() if parts["ia3_l"].shape[:1] == (1,)
        )
    return settings


def _part_of(kind: AdapterKind, name: str) -> tuple[str, str] | None:
    """Module and part that a tensor of LoRA or IA3 is of; None if it is not the adapter's own."""
    for part in _PARTS[kind]:
        if name.startswith(_PREFIX) and name.endswith(f".{part}"):
            module = name[len(_PREFIX) : -len(part) - 1]
            return (module, part) if _MODULE.fullmatch(module) else None
    return None


def _is_declared(name: str, kept: Mapping[str, Any]) -> bool:
    """Whether the settings say that this part of the model was trained as a whole.

    Whether PEFT would save it with those settings, the model decides (`adapter_decoding`).
    """
    if kept.get("bias", "none") != "none" and name.endswith(".bias"):
        return True
    module = name.rpartition(".")[0]
    return any(f".{saved}." in f"{module}." for saved in kept.get("modules_to_save", ()))


def _require_targeted(directory: Path, modules: Iterable[str], targets: object) -> None:
    """Refuse numbers for modules that the settings do not name: PEFT would leave them out.

    A pattern is not matched, for a hostile one takes for ever: there the file is believed.
    """
    if not isinstance(targets, list):
        return
    ends = tuple(f".{target}" for target in targets)
    for module in modules:
        if module not in targets and not module.endswith(ends):
            _disagrees(directory, f"name {module}, of which there are numbers", _listed(targets))


def _require_ranks(
    directory: Path, modules: Mapping[str, Mapping[str, Tensor]], settings: Settings
) -> None:
    """Refuse ranks that are not those of the matrices: PEFT would make room for them first."""
    default = settings.setdefault("r", 8)
    patterns = settings.get("rank_pattern", {})
    for module, parts in modules.items():
        first = parts.get("lora_A.weight", parts.get("lora_embedding_A"))
        rank = first.shape[0] if first is not None and first.ndim == 2 else 0
        # As PEFT looks a module up; the patterns are plain names.
        named = [name for name in patterns if re.match(rf"(.*\.)?({name})$", module)]
        said = patterns[named[0]] if named else default
        if rank != said:
            got = f"rank {said} for {module}, of which there are {rank or 'no'} rows"
            _disagrees(directory, f"fit {ADAPTER_FILE}", got)


def _disagrees(directory: Path, rule: str, got: str) -> NoReturn:
    raise UserError(str(directory / CONFIG_FILE), rule, got=got, remedy="download both files again")


def _listed(names: Iterable[str]) -> str:
    several = list(names)
    more = f" and {len(several) - 3} more" if len(several) > 3 else ""
    return (", ".join(several[:3]) or "nothing") + more
