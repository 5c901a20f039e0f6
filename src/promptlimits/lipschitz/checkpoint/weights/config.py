"""Settings of a checkpoint from its config.json, read without transformers.

Older files leave out what their writer took for granted; the defaults given here are those of
transformers. A setting that would change the function in a way that no block describes is
refused, not ignored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.checkpoint.block import Activation, Rotary
from promptlimits.nets.files.folder import read_object, require_model_folder

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
# These change the angles only; the others multiply queries and keys as well.
_TURNING_ROPES = ("default", "linear", "llama3", "dynamic")
# With these the stored numbers are not the weights, or code from elsewhere is the model.
_OTHER_FUNCTIONS = ("quantization_config", "auto_map")


class Config:
    """One model's settings, each checked when it is asked for.

    Args:
        settings: Parsed config.json.
        name: What messages call the model.
    """

    def __init__(self, settings: Mapping[str, Any], *, name: str) -> None:
        self._settings = settings
        self.name = name

    @property
    def family(self) -> str:
        """The model_type."""
        return str(self._settings.get("model_type"))

    def get(self, key: str, default: Any = None) -> Any:
        """A setting as it stands there, or the default if it is missing or null."""
        value = self._settings.get(key)
        return default if value is None else value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(key, "be a whole number of at least 1")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self.get(key, default)
        if not _is_positive(value):
            raise self._wrong(key, "be a finite number above 0")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """A setting that is true or false."""
        value = self._settings.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "be true or false")
        return value

    def require_same(self, key: str, other: str) -> None:
        """Refuse two names of one setting with different values."""
        if other in self._settings and self._settings[other] != self._settings.get(key):
            raise self._wrong(other, f"be that of {key}, if it is there at all")

    def eps(self, key: str, default: float) -> Fraction:
        """A norm's eps, as the double that the model is given."""
        return Fraction(self.number(key, default))

    def activation(self, key: str, default: str) -> Activation:
        """The feed-forward layer's activation."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise self._wrong(key, f"be one of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]

    def require(self, key: str, allowed: tuple[Any, ...]) -> None:
        """Refuse a setting that the blocks cannot describe."""
        if key in self._settings and self._settings[key] not in allowed:
            raise self._wrong(key, f"be {' or '.join(map(json.dumps, allowed))}")

    def divides(self, whole: str, parts: int, total: int) -> int:
        """The width of one of `parts` equal parts."""
        if total % parts:
            raise self._wrong(whole, f"be a multiple of {parts}")
        return total // parts

    def rotary(self, head_dim: int, *, layer_type: str | None = None, share: float = 1.0) -> Rotary:
        """Rotary positions of a layer, from today's rope_parameters or from older keys."""
        rope = self._rope(layer_type)
        local = layer_type == "sliding_attention"
        older = self.get("rope_local_base_freq") if local else self.get("rope_theta")
        theta = rope.get("rope_theta") or older or self.get("rotary_emb_base", 10_000.0)
        part = rope.get("partial_rotary_factor")
        part = self.get("rotary_pct", share) if part is None else part
        if not _is_positive(theta) or not _is_positive(part) or part > 1:
            raise UserError(
                f"rotary positions in config.json of {self.name}",
                "have a rope_theta above 0 and a partial_rotary_factor of at most 1",
                got=f"{theta!r} and {part!r}",
                remedy="get the checkpoint's own config.json",
            )
        return Rotary(width=int(head_dim * float(part)), theta=float(theta))

    def _rope(self, layer_type: str | None) -> Mapping[str, Any]:
        """Settings of the rotary positions, where every kind that is named only turns."""
        today, older = self._rope_table("rope_parameters"), self._rope_table("rope_scaling")
        if today and older:
            # transformers has let one win, and the other: the function would depend on its version.
            raise UserError(
                f"config.json of {self.name}",
                "have rope_parameters or rope_scaling",
                got="both",
                remedy="drop the one that the model was not trained with",
            )
        rope = today or older
        for table in (rope, *(part for part in rope.values() if isinstance(part, Mapping))):
            for kind in (table.get("rope_type"), table.get("type")):
                if kind is not None and kind not in _TURNING_ROPES:
                    raise UserError(
                        f"rope_type of {self.name}",
                        f"be one of {', '.join(_TURNING_ROPES)}",
                        got=str(kind),
                        remedy="use a model whose rotary positions only turn",
                    )
        part = rope.get(layer_type) if layer_type is not None else None
        return part if isinstance(part, Mapping) else rope

    def _rope_table(self, key: str) -> Mapping[str, Any]:
        table = self.get(key, {})
        if not isinstance(table, Mapping):
            raise self._wrong(key, "be a JSON object or null")
        return table

    def _wrong(self, key: str, rule: str) -> UserError:
        return UserError(
            f"{key} in config.json of {self.name}",
            rule,
            got=repr(self._settings.get(key, "nothing")),
            remedy="use a checkpoint of a family that `promptlimits certify --help` names",
        )


def _is_positive(value: Any) -> bool:
    """Whether a setting is a number above 0 that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= sys.float_info.max


def read_settings(directory: Path, *, name: str) -> Config:
    """Read config.json."""
    require_model_folder(directory, name=name)
    path = directory / "config.json"
    try:
        settings = read_object(path)
    except (OSError, ValueError) as error:
        raise UserError(
            name,
            "hold a readable config.json",
            got=f"one that cannot be read ({getattr(error, 'strerror', None) or error})",
            remedy="point at the directory that save_pretrained wrote",
        ) from error
    config = Config(settings, name=name)
    for key in _OTHER_FUNCTIONS:
        config.require(key, (None,))
    return config
