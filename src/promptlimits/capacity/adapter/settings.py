"""Settings of an adapter from elsewhere: what is kept of them, and what is refused.

Stock PEFT does what adapter_config.json says: it imports modules that the file names, fetches
tokenizers and source tasks, and matches the patterns in it as regular expressions. So it never sees
that file. It gets settings written anew from what is known here of each kind of adapter: a setting
is kept (and checked), known to be without effect on an adapter that is loaded (and left out), or
refused unless it is unset. One that PEFT 0.21 does not know is left out with a note, as PEFT does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeAlias

from promptlimits.base.errors import UserError

Settings: TypeAlias = dict[str, Any]
"""Content of an adapter_config.json."""


class AdapterKind(StrEnum):
    """Kinds of adapters that are decoded, as PEFT calls them in `peft_type`."""

    PROMPT_TUNING = "PROMPT_TUNING"
    P_TUNING = "P_TUNING"
    PREFIX_TUNING = "PREFIX_TUNING"
    CARTRIDGE = "CARTRIDGE"
    LORA = "LORA"
    IA3 = "IA3"

    @property
    def is_prompt(self) -> bool:
        """Whether all of it is one matrix, a row for each virtual token."""
        return self not in {AdapterKind.LORA, AdapterKind.IA3}

    @property
    def is_prefix(self) -> bool:
        """Whether that matrix is keys and values of every layer, not input vectors."""
        return self in {AdapterKind.PREFIX_TUNING, AdapterKind.CARTRIDGE}


_OTHERS: Final = {
    "MULTITASK_PROMPT_TUNING": "it holds a prompt for each of several tasks; save the one that "
    "is meant as PROMPT_TUNING",
    "ADALORA": "its ranks change while it trains; save it as LORA",
    "XLORA": "it loads other adapters by their paths; give one of those",
    "CPT": "it changes how the model's loss is computed; save its vectors as PROMPT_TUNING",
}
_CAUSAL: Final = "CAUSAL_LM"

# What a kept setting must be.
_Check: TypeAlias = Callable[[object], bool]


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


# A dotted name, at most anchored: no regular expression of this form takes long to match, and so
# many do not, either.
_PLAIN: Final = re.compile(r"\^?[\w.]+\$?", re.ASCII)
_MOST_PATTERNS: Final = 10_000


def _is_pattern(check: _Check) -> _Check:
    def by_name(value: object) -> bool:
        return (
            isinstance(value, dict)
            and len(value) <= _MOST_PATTERNS
            and all(_PLAIN.fullmatch(name) and check(one) for name, one in value.items())
        )

    return by_name


_PROMPT_SIZES: Final = (
    *("num_virtual_tokens", "token_dim", "num_layers", "num_attention_heads"),
    "num_transformer_submodules",
)
_PROMPT_KEPT: Final = dict.fromkeys(_PROMPT_SIZES, (_is_count, "a whole number above 0"))
_LORA_KEPT: Final[dict[str, tuple[_Check, str]]] = {
    "r": (_is_count, "a whole number above 0"),
    "lora_alpha": (_is_number, "a number"),
    "use_rslora": (_is_bool, "true or false"),
    "use_dora": (_is_bool, "true or false"),
    "lora_bias": (_is_bool, "true or false"),
    "fan_in_fan_out": (_is_bool, "true or false"),
    "bias": (lambda value: value in ("none", "all", "lora_only"), "none, all or lora_only"),
    "rank_pattern": (_is_pattern(_is_count), "ranks by plain names of modules"),
    "alpha_pattern": (_is_pattern(_is_number), "numbers by plain names of modules"),
    "modules_to_save": (_is_names, "a list of names"),
    "target_modules": (
        lambda value: isinstance(value, str) or _is_names(value),
        "a list of names, or a pattern",
    ),
    "init_lora_weights": (lambda value: isinstance(value, bool | str), "true, false or a name"),
}
_IA3_KEPT: Final[dict[str, tuple[_Check, str]]] = {
    name: _LORA_KEPT[name] for name in ("fan_in_fan_out", "modules_to_save", "target_modules")
}
KEPT: Final = {
    kind: _PROMPT_KEPT
    if kind.is_prompt
    else {AdapterKind.LORA: _LORA_KEPT, AdapterKind.IA3: _IA3_KEPT}[kind]
    for kind in AdapterKind
}

_COMMON: Final = (
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path"),
    *("revision", "inference_mode"),
)
WITHOUT_EFFECT: Final[dict[AdapterKind, tuple[str, ...]]] = {
    AdapterKind.PROMPT_TUNING: (
        *("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"),
        "tokenizer_kwargs",
    ),
    # What is saved is what the encoder gave, not the encoder.
    AdapterKind.P_TUNING: (
        *("encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers"),
        "encoder_dropout",
    ),
    AdapterKind.PREFIX_TUNING: ("encoder_hidden_size", "prefix_projection", "init_weights"),
    AdapterKind.CARTRIDGE: ("num_frozen_tokens",),
    AdapterKind.LORA: (
        *("lora_dropout", "megatron_core", "runtime_config", "qalora_group_size"),
        *("ensure_weight_tying", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
        # The layers are those that the file holds numbers for.
        *("exclude_modules", "layers_to_transform", "layers_pattern"),
    ),
    # Which modules are feedforward shows in the shape of their numbers.
    AdapterKind.IA3: ("feedforward_modules", "exclude_modules", "init_ia3_weights"),
}
"""Settings that do not change what a saved adapter makes the model answer."""

_ELSEWHERE: Final = "this program does not decode such adapters"
REFUSED: Final[dict[AdapterKind, dict[str, str]]] = {
    kind: {"modules_to_save": "a prompt has no modules beside it"} if kind.is_prompt else {}
    for kind in AdapterKind
}
REFUSED[AdapterKind.LORA] = {
    "megatron_config": "it has PEFT import modules that the file names",
    "layer_replication": "it changes the model itself",
    "trainable_token_indices": "it changes embeddings of the model",
    **dict.fromkeys(
        (
            *("target_parameters", "alora_invocation_tokens", "use_qalora", "use_bdlora"),
            *("arrow_config", "kasa_config", "monteclora_config", "velora_config"),
        ),
        _ELSEWHERE,
    ),
}
"""Settings that must be unset, and why."""

_STARTS: Final = ("gaussian", "eva", "orthogonal")
"""Starts of LoRA that choose the first numbers only, which those of the file replace."""


def adapter_kind(where: str, found: Mapping[str, Any]) -> AdapterKind:
    """The kind of an adapter."""
    said = found.get("peft_type")
    if said not in list(AdapterKind):
        remedy = _OTHERS.get(str(said), "give an adapter of one of these kinds")
        raise UserError(
            f"peft_type in {where}",
            f"be one of {', '.join(AdapterKind)}",
            got="none" if said is None else str(said),
            remedy=remedy,
        )
    task = found.get("task_type")
    if task not in (None, _CAUSAL):
        raise UserError(
            f"task_type in {where}",
            f"be {_CAUSAL}, or not said",
            got=f"{task}, which is for encoder-decoders" if task == "SEQ_2_SEQ_LM" else str(task),
            remedy="give an adapter of a causal language model; others are not decoded",
        )
    return AdapterKind(said)


def kept_settings(
    where: str, kind: AdapterKind, found: Mapping[str, Any]
) -> tuple[Settings, tuple[str, ...]]:
    """What is kept of an adapter's settings."""
    kept: Settings = {}
    unknown = []
    for name, value in found.items():
        if name in _COMMON or name in WITHOUT_EFFECT[kind] or value is None:
            continue
        if name in KEPT[kind]:
            check, must_be = KEPT[kind][name]
            if not check(value):
                _refuse(where, name, f"be {must_be}", value, "save the adapter with PEFT again")
            kept[name] = value
        elif (reason := REFUSED[kind].get(name)) is not None:
            if value not in (False, [], {}):
                _refuse(where, name, "be unset", value, f"{reason}: save the adapter without it")
        else:
            unknown.append(name)
    _require_one_submodule(where, kept)
    _require_plain_start(where, kept)
    notes = f"settings that are not known were left out: {', '.join(sorted(unknown)[:5])}"
    return kept, (notes,) if unknown else ()


def _require_one_submodule(where: str, kept: Mapping[str, Any]) -> None:
    name = "num_transformer_submodules"
    if kept.get(name, 1) != 1:
        remedy = "give an adapter of a causal language model, not of an encoder-decoder"
        _refuse(where, name, "be 1", kept[name], remedy)


def _require_plain_start(where: str, kept: Settings) -> None:
    """Refuse a LoRA that is to be loaded into weights other than the model's own."""
    start = kept.pop("init_lora_weights", True)
    if isinstance(start, str) and start not in _STARTS:
        _refuse(
            where,
            "init_lora_weights",
            f"be true, false, {' or '.join(_STARTS)}",
            start,
            "it changes the model's own weights before it is loaded: save the adapter with "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...) of PEFT",
        )


def _refuse(where: str, name: str, rule: str, got: object, remedy: str) -> NoReturn:
    raise UserError(f"{name} in {where}", rule, got=got, remedy=remedy)
