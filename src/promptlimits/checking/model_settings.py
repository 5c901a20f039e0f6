"""config.json as the checker reads it: what would change a model's blocks is refused.

Each setting has the type that the model gives it: a text for a number, or null for a truth
value, means something else to the model than to a reader that converts.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text
from promptlimits.checking.model_files import unusable
from promptlimits.checking.model_names import FAMILIES

_ACTS: Final = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
_ALLOWED: Final[dict[str, dict[str, tuple[Any, ...]]]] = {
    "bert": {"position_embedding_type": (None, "absolute"), "add_cross_attention": (None, False)},
    "gemma3_text": {
        "attn_logit_softcapping": (None,),
        "attention_bias": (None, False),
        "use_bidirectional_attention": (None, False),
    },
    "gpt2": {"add_cross_attention": (None, False)},
}
_FOR_ALL: Final[dict[str, tuple[Any, ...]]] = {"quantization_config": (None,), "auto_map": (None,)}
# Other names of the same settings: which of the two the model takes depends on their order.
_ALIASES: Final = {
    "gpt2": {
        "hidden_size": "n_embd",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
}
_ROTARY: Final = ("gemma3_text", "gpt_neox", "llama", "qwen2")
_ROPES: Final = ("default", "linear", "llama3", "dynamic")  # they turn and do not stretch
_ROPE_NUMBERS: Final = ("rope_theta", "factor", "partial_rotary_factor")
_OLDER_NUMBERS: Final = ("rope_theta", "rope_local_base_freq", "rotary_emb_base", "rotary_pct")


class Settings:
    """The settings of a checkpoint.

    Args:
        directory: Holds config.json.

    Raises:
        UserError: It cannot be read, or describes a model whose blocks are not known.
    """

    def __init__(self, directory: Path) -> None:
        try:
            record = json.loads(read_regular_text(directory / "config.json"))
            if not isinstance(record, dict):
                raise TypeError("config.json holds no object")
        except (OSError, ValueError, TypeError, RecursionError) as bad:
            rule = "be the directory of a checkpoint with config.json and safetensors"
            raise unusable(rule, f"{directory} ({type(bad).__name__}: {bad})") from bad
        if (directory / "adapter_config.json").exists():
            raise unusable("be a plain checkpoint", "one with an adapter")
        self._record: dict[str, Any] = record
        family = record.get("model_type")
        if not isinstance(family, str) or family not in FAMILIES:
            raise unusable("be of a family whose blocks are known", f"model_type {family!r}")
        self.family = family
        self._refuse_foreign()
        if family in _ROTARY:
            self._require_turning()

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(key, "a whole number of at least 1")
        return value

    def number(self, key: str, default: float) -> Fraction:
        """A number above 0, as the double that the model is given."""
        value = self._get(key, default)
        if not _is_positive(value):
            raise self._wrong(key, "a finite number above 0")
        return Fraction(float(value))

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value."""
        value = self._record.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def activation(self, key: str, default: str) -> str:
        """The feed-forward layer's activation."""
        value = self._get(key, default)
        if not isinstance(value, str) or value not in _ACTS:
            raise self._wrong(key, f"one of {', '.join(_ACTS)}")
        return _ACTS[value]

    def has(self, key: str) -> bool:
        """Whether a setting is there and not null."""
        return self._record.get(key) is not None

    def _get(self, key: str, default: Any) -> Any:
        value = self._record.get(key)
        return default if value is None else value

    def _refuse_foreign(self) -> None:
        for key, allowed in (_FOR_ALL | _ALLOWED.get(self.family, {})).items():
            if self._record.get(key) not in allowed:
                raise self._wrong(key, f"absent or {allowed[-1]!r}")
        for other, key in _ALIASES.get(self.family, {}).items():
            if other in self._record and self._record[other] != self._record.get(key):
                raise self._wrong(other, f"the same as {key}")

    def _require_turning(self) -> None:
        """Rotary positions turn queries and keys, in every type of layer."""
        if self.has("rope_parameters") and self.has("rope_scaling"):
            raise self._wrong("rope_scaling", "absent where there are rope_parameters")
        for key in _OLDER_NUMBERS:
            if self.has(key) and not _is_positive(self._record[key]):
                raise self._wrong(key, "a finite number above 0")
        for key in ("rope_parameters", "rope_scaling"):
            if not self.has(key):
                continue
            rope = self._record[key]
            if not isinstance(rope, dict):
                raise self._wrong(key, "an object")
            for part in (rope, *(item for item in rope.values() if isinstance(item, dict))):
                if not _only_turns(part):
                    raise self._wrong(key, f"of type {', '.join(_ROPES)}, with numbers above 0")

    def _wrong(self, key: str, what: str) -> UserError:
        found = repr(self._record.get(key, "nothing"))
        shown = found if len(found) <= 80 else f"{found[:80]}..."
        return unusable(f"have a config.json where {key} is {what}", shown)


def _is_positive(value: Any) -> bool:
    """A number that a double can hold, above 0 as one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and float(value) > 0
    except OverflowError:
        return False


def _only_turns(rope: dict[str, Any]) -> bool:
    kinds = [rope[key] for key in ("rope_type", "type") if rope.get(key) is not None]
    numbers = [rope[key] for key in _ROPE_NUMBERS if rope.get(key) is not None]
    return all(kind in _ROPES for kind in kinds) and all(map(_is_positive, numbers))
