"""Settings refuse what they cannot mean, and every outcome has a remedy."""

import json
import math

import pytest

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.capacity.train.config import SHARPENED_DEVIATION, Objective, TrainingConfig
from promptlimits.capacity.train.problem import Outcome
from promptlimits.capacity.train.state import TrainingState


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt_tokens", 0),
        ("prompt_tokens", True),
        ("prompt_tokens", 1.5),
        ("max_steps", 0),
        ("patience", 0),
        ("decay_steps", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("sharpening", -4.0),
        ("first_sharpening_share", 0.0),
        ("first_sharpening_share", 1.5),
        ("first_sharpening_share", math.nan),
        ("relative_lead", 0.0),
        ("clip_norm", -1.0),
        ("seed", -1),
    ],
)
def test_a_setting_that_cannot_be_is_named(name, value):
    with pytest.raises(UserError, match=rf"^{name} must .*; "):
        TrainingConfig(**{"prompt_tokens": 1, name: value})


def test_the_learning_rate_falls_in_a_line_and_stays():
    config = TrainingConfig(
        prompt_tokens=1, learning_rate=2.0, final_learning_rate_share=0.1, decay_steps=10
    )
    assert config.learning_rate_at(0) == 2.0
    assert config.learning_rate_at(5) == pytest.approx(1.1)
    assert config.learning_rate_at(10) == config.learning_rate_at(99) == pytest.approx(0.2)


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_a_remedy(outcome):
    assert len(outcome.remedy_for("tokens")) > 10
    assert "pairs" not in outcome.remedy_for("tokens")
    assert outcome.final == (outcome not in (Outcome.OUT_OF_BUDGET, Outcome.INTERRUPTED))


def test_a_damaged_state_is_one_line():
    with pytest.raises(RunFailed, match="cannot be read"):
        TrainingState.from_bytes(b"not safetensors", device=None)


def test_settings_go_to_json_and_back():
    config = TrainingConfig(prompt_tokens=2, objective=Objective.MARGIN)
    fields = json.loads(json.dumps(config.to_json()))
    assert fields.pop("objective") == "margin"
    assert TrainingConfig(**fields, objective=Objective("margin")) == config


def test_logits_are_sharpened_to_one_deviation_unless_told():
    by_default = TrainingConfig(prompt_tokens=1)
    assert by_default.sharpening_for(3.0) * 3.0 == pytest.approx(SHARPENED_DEVIATION)
    assert by_default.sharpening_for(0.5) * 0.5 == pytest.approx(SHARPENED_DEVIATION)
    assert TrainingConfig(prompt_tokens=1, sharpening=2.5).sharpening_for(3.0) == 2.5
