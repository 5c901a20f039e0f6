"""The blocks of a checkpoint, from the stock modules that transformers builds for it.

transformers decides which tensor plays which part, what a setting that is left out means and
which of two names wins: it builds the model without numbers, and `families` lays out the modules
of a block as `nets.block` has them. Numbers are read from the files when a block is asked for:
one block is in memory at a time. Every tensor of the files must be one of the model's, and every
parameter of a block must be used: a tensor that nobody thought of may change the model.

The checker of a model's ceiling is given these same blocks: the reader is shared, what is proved
of them is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForPreTraining

from promptlimits.base.errors import UserError
from promptlimits.nets.block import Array, Block, Checkpoint
from promptlimits.nets.files.folder import read_object, require_model_folder
from promptlimits.nets.files.safetensors_file import WeightReader
from promptlimits.nets.load.families import FAMILIES, Part, Unfit, is_positive, norm
from promptlimits.nets.load.network import quiet, readable

_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    # Stored numbers are not the weights, or code from elsewhere is the model.
    "quantization_config": (None,),
    "auto_map": (None,),
    # No block describes these.
    "add_cross_attention": (None, False),
    "position_embedding_type": (None, "absolute"),
    "attn_logit_softcapping": (None,),
    "use_bidirectional_attention": (None, False),
}
"""Settings that change the function, with the values under which blocks describe it."""

_TURNING_ROPES: Final = ("default", "linear", "llama3", "dynamic")
"""These change the angles only; the others multiply queries and keys as well."""

_ROPE_NUMBERS: Final = (
    *("rope_theta", "factor", "partial_rotary_factor"),
    *("rope_local_base_freq", "rotary_emb_base", "rotary_pct"),
)
_OLDER_NAMES: Final = {
    r"LayerNorm\.gamma$": "LayerNorm.weight",
    r"LayerNorm\.beta$": "LayerNorm.bias",
    r"^embed_out\.": "lm_head.",
}
"""As transformers renames them."""
_BUFFERS: Final = r"(?:.*\.)?(?:attn|attention)\.(?:masked_)?bias|.*\.rotary_emb\.inv_freq"
"""What older versions wrote and no model reads."""


def open_checkpoint(directory: Path, *, name: str) -> Checkpoint:
    """Open a checkpoint; its blocks are read when they are asked for.

    Args:
        directory: Holds config.json and safetensors.
        name: What messages call the model.

    Returns:
        The checkpoint.

    Raises:
        UserError: It is no plain checkpoint of a family whose blocks are known.
    """
    require_model_folder(directory, name=name)
    with readable(name, "hold a readable config.json", remedy="get the model's own config.json"):
        raw = read_object(directory / "config.json")
    _require_plain(raw, name)
    reader = WeightReader(directory, name=name)
    with quiet(), readable(name, "have a config.json that describes a network", remedy="mend it"):
        config = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        for other, key in config.attribute_map.items():
            if {other, key} <= raw.keys() and raw[other] != raw[key]:
                raise _wrong(name, other, f"be that of {key}, if it is there at all", raw[other])
        # A skeleton of more blocks than there are tensors is not worth its memory.
        layers = min(config.num_hidden_layers, len(reader.keys))
        whole = _skeleton(config) if layers == config.num_hidden_layers else None
    if whole is None:
        raise UserError(
            name,
            f"hold the {config.num_hidden_layers} blocks that its config.json states",
            got=f"{len(reader.keys)} tensors",
            remedy="get the checkpoint's own config.json",
        )
    return _Opened(config, whole, reader).checkpoint()


def _require_plain(raw: Mapping[str, Any], name: str) -> None:
    """Refuse settings that the blocks would not show."""
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(
            name,
            f"be of a family whose blocks are known ({', '.join(FAMILIES)})",
            got=f"model_type {family!r}",
            remedy="use a model of one of these families",
        )
    for key, allowed in _PLAIN.items():
        if raw.get(key) not in allowed:
            raise _wrong(name, key, f"be {allowed[-1]!r} or left out", raw[key])
    both = raw.get("rope_parameters") and raw.get("rope_scaling")
    if both:
        # transformers has let one win, and the other: the function would depend on its version.
        raise _wrong(name, "rope_scaling", "be left out beside rope_parameters", both)
    tables: list[Mapping[str, Any]] = [raw]
    for key in ("rope_parameters", "rope_scaling"):
        table = raw.get(key) or {}
        if not isinstance(table, dict):
            raise _wrong(name, key, "be an object", table)
        tables += [table, *(item for item in table.values() if isinstance(item, dict))]
    for table in tables:
        for kind in (table.get("rope_type"), table.get("type")):
            if kind is not None and kind not in _TURNING_ROPES:
                raise _wrong(name, "rope_type", f"be one of {', '.join(_TURNING_ROPES)}", kind)
        for key in _ROPE_NUMBERS:
            if table.get(key) is not None and not is_positive(table[key]):
                raise _wrong(name, key, "be a finite number above 0", table[key])


def _wrong(name: str, key: str, rule: str, got: Any) -> UserError:
    return UserError(
        f"{key} in config.json of {name}",
        rule,
        got=repr(got)[:80],
        remedy="use a checkpoint of a family that `promptlimits certify --help` names",
    )


def _skeleton(config: Any) -> Any:
    """The stock model with its heads, without numbers."""
    with torch.device("meta"):
        try:
            return AutoModelForPreTraining.from_config(config, trust_remote_code=False)
        except ValueError:  # of most families, the causal model is the one that is trained
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


class _Opened:
    """A stock model without numbers and the files that hold them."""

    def __init__(self, config: Any, whole: Any, reader: WeightReader) -> None:
        self._config, self._base, self._reader = config, whole.base_model, reader
        self._family = FAMILIES[config.model_type]
        self._prefix = f"{whole.base_model_prefix}."
        self._shapes = {key: tuple(value.shape) for key, value in whole.state_dict().items()}
        self._buffers = {key for key, _ in whole.named_buffers()}
        self._modules = {path for path, _ in whole.named_modules()}
        self._stored = self._names()
        self._used: set[str] = set()

    def checkpoint(self) -> Checkpoint:
        """The checkpoint, its dropped tensors found to be finite."""
        family = self._family
        parts = (family.layers, family.norm, *family.added)
        kept = tuple(f"{self._prefix}{part}." for part in parts)
        # A prompt takes the place of word embeddings; heads are behind the hidden state.
        words = self._base.get_input_embeddings()
        (place,) = (path for path, module in self._base.named_modules() if module is words)
        known = (*kept, *(f"{self._prefix}{part}." for part in (place, *family.unused)))
        for path in self._shapes:
            if path.startswith(self._prefix) and not path.startswith(known):
                raise self._unfit("have only parts that blocks describe", path)
        for path, key in self._stored.items():
            if not path.startswith(kept):
                self._reader.require_finite(key)
        edge = self._lay_out(partial(norm, self._part(family.norm), offset=family.offset))
        return Checkpoint(
            family=self._config.model_type,
            dim=len(edge.gain),
            layers=self._config.num_hidden_layers,
            entry_norm=edge if family.post else None,
            final_norm=None if family.post else edge,
            added=self._added(),
            blocks=self._blocks(),
        )

    def _names(self) -> dict[str, str]:
        """The stored name of every tensor of the model; others are refused."""
        found: dict[str, str] = {}
        forms = set()
        for key in sorted(self._reader.keys):
            path = key
            for older, today in _OLDER_NAMES.items():
                path = re.sub(older, today, path)
            full = path in self._shapes or path.startswith(self._prefix)
            whole = path if full else self._prefix + path
            if whole not in self._shapes and not self._ignored(path):
                raise self._unfit(
                    f"hold only tensors of a {self._config.model_type} model of "
                    f"{self._config.num_hidden_layers} blocks",
                    f"an unknown tensor {key}",
                )
            if whole in found:
                raise self._unfit("hold each tensor once", f"{key} beside {found[whole]}")
            if whole.startswith(self._prefix):
                forms.add(full)
            found[whole] = key
        if len(forms) > 1:
            rule = f"name all tensors with {self._prefix} in front, or none"
            raise self._unfit(rule, "some of each")
        return found

    def _ignored(self, path: str) -> bool:
        """Whether it is a buffer, of today's model or of older ones, in a block that is there."""
        for whole in (path, self._prefix + path):
            block = re.match(r".*?\.\d[^.]*(?=\.)", whole)
            there = block is None or block[0] in self._modules
            if there and (whole in self._buffers or re.fullmatch(_BUFFERS, whole)):
                return True
        return False

    def _read(self, path: str, *, shape: tuple[int, ...]) -> Array:
        self._used.add(path)
        return self._reader.read(self._stored.get(path, path), shape=shape)

    def _part(self, path: str) -> Part:
        return Part(self._base.get_submodule(path), self._prefix + path, self._read)

    def _blocks(self) -> Iterator[Block]:
        for place in range(self._config.num_hidden_layers):
            part = self._part(f"{self._family.layers}.{place}")
            yield self._lay_out(partial(self._block, part, place))

    def _block(self, part: Part, place: int) -> Block:
        self._used.clear()
        block = self._family.block(part, self._config, place)
        path = f"{self._prefix}{self._family.layers}.{place}."
        unused = {path + name for name, _ in part.module.named_parameters()} - self._used
        if unused:
            raise Unfit(f"no block has a {min(unused)}")
        return block

    def _lay_out(self, make: Callable[[], Any]) -> Any:
        """What settings give, or a refusal."""
        try:
            return make()
        except (Unfit, AttributeError, KeyError) as error:
            raise UserError(
                f"config.json of {self._reader.name}",
                "describe blocks that are known",
                got=str(error),
                remedy="use a checkpoint of a family that `promptlimits certify --help` names",
            ) from error

    def _added(self) -> tuple[Array, ...] | None:
        """Tables of what is added to a prompt token; None where one is missing."""
        tables = [f"{self._prefix}{path}.weight" for path in self._family.added]
        if any(path not in self._stored for path in tables):
            return None
        return tuple(self._read(path, shape=self._shapes[path]) for path in tables)

    def _unfit(self, rule: str, got: str) -> UserError:
        return UserError(
            self._reader.name,
            rule,
            got=got,
            remedy="use a plain checkpoint without adapters or parts of other models",
        )
