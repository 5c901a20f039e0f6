"""Nothing that PEFT knows of a kind of adapter is unknown here."""

import dataclasses

import peft
import pytest

from promptlimits.capacity.adapter.settings import (
    KEPT,
    REFUSED,
    WITHOUT_EFFECT,
    AdapterKind,
    kept_settings,
)

CONFIGS = {
    AdapterKind.PROMPT_TUNING: peft.PromptTuningConfig,
    AdapterKind.P_TUNING: peft.PromptEncoderConfig,
    AdapterKind.PREFIX_TUNING: peft.PrefixTuningConfig,
    AdapterKind.CARTRIDGE: peft.CartridgeConfig,
    AdapterKind.LORA: peft.LoraConfig,
    AdapterKind.IA3: peft.IA3Config,
}
COMMON = {field.name for field in dataclasses.fields(peft.PeftConfig)}


@pytest.mark.parametrize("kind", AdapterKind)
def test_every_setting_of_peft_is_kept_refused_or_known_to_have_no_effect(kind):
    known = {field.name for field in dataclasses.fields(CONFIGS[kind])} - COMMON
    groups = [set(KEPT[kind]), set(REFUSED[kind]), set(WITHOUT_EFFECT[kind])]
    assert known <= set().union(*groups)
    assert sum(map(len, groups)) == len(set().union(*groups)), "one is in two groups"


@pytest.mark.parametrize("kind", AdapterKind)
def test_what_peft_sets_by_default_is_taken(kind):
    config = CONFIGS[kind](task_type="CAUSAL_LM")
    settings = config.to_dict()
    settings.pop("runtime_config", None)
    _, notes = kept_settings("adapter_config.json", kind, settings)
    assert notes == ()
