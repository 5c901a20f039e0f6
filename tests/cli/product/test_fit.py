"""`promptlimits fit` says what a prompt held and, where it failed, what the control says."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from promptlimits.testing.tiny_models import tiny_of_family

Call = Callable[..., Any]

# A learning rate with which nothing is ever found, planted or not: nothing is verified.
FIT = (
    *("fit", "--model", "tiny", "--pairs", "pairs.csv", "--out", "out", "--quiet"),
    *("--learning-rate", "1e-6", "--max-steps", "3", "--starts", "2"),
)
pytestmark = pytest.mark.usefixtures("model")


def saved(here):
    return json.loads((here / "out" / "fit.json").read_text(encoding="utf-8"))


def test_a_fit_that_failed_prints_and_keeps_its_control(call, here):
    ended = call(*FIT)
    assert (ended.code, ended.err) == (1, "")
    first, why, control = ended.out.splitlines()
    assert first == "0 of 4 pairs found and confirmed"
    assert why.startswith("Ended out_of_steps: raise --max-steps")
    assert control.startswith("planted control (measured): 0 of 4 answers of a known prompt ")
    assert control.endswith("may be the optimiser's limit, not the model's")
    kept = saved(here)["control"]
    assert (kept["status"], kept["pairs"], kept["recovered"]) == ("measured", 4, 0)
    assert len(saved(here)["search"]) == 2


def test_the_json_is_the_record_with_its_control(call, here):
    ended = call(*FIT, "--json")
    assert json.loads(ended.out) == saved(here)
    assert json.loads(ended.out)["control"]["finished"] is True


def test_a_fit_without_time_says_why_it_has_no_control(call, here):
    ended = call(*FIT, "--budget", "1e-9")
    assert ended.code == 3
    assert ended.out.splitlines()[-1].startswith("no planted control: the budget was used up ")
    assert saved(here)["control"]["reason"] == "budget used up"


def test_a_fit_that_a_budget_ends_names_the_command_that_goes_on(call, here):
    ended = call(*FIT, "--steps", "2")
    assert ended.code == 3
    line = next(line for line in ended.out.splitlines() if line.startswith("Go on:  "))
    assert line == f"Go on:  promptlimits {' '.join(FIT)} --steps 4"
    assert saved(here)["state"] == "not_searched"
    # That command goes on from step 2: it does the first start's third step, and one of the others.
    again = call(*FIT, "--steps", "4")
    assert [one["steps"] for one in saved(here)["search"]] == [3, 1]
    assert again.code == 3


def test_a_control_that_is_not_wanted_is_not_run(call, here):
    ended = call(*FIT, "--no-control")
    assert len(ended.out.splitlines()) == 2
    assert "control" not in ended.out
    assert saved(here)["control"] is None


@pytest.mark.slow  # starts the installed command
def test_no_word_of_a_library_reaches_the_terminal(spawn, here, monkeypatch):
    """Transformers warns at each forward pass of this family that its kernels are missing."""
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "num_experts": 1,
        "num_experts_per_tok": 1,
    }
    tiny_of_family(here / "hybrid", "jamba", settings)
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY")
    monkeypatch.delenv("HF_HUB_VERBOSITY")
    asked = ("fit", "--model", "hybrid", "--pairs", "pairs.csv", "--max-steps", "2")
    ended = spawn(*asked, "--starts", "1", "--no-control", "--learning-rate", "1e-6")
    assert ended.code == 1
    first, note, *rest = ended.err.splitlines()
    assert first == "... loading hybrid"
    assert note.startswith("promptlimits: note: hybrid: the prompt is run once for every pair")
    assert all(line.startswith(("... ", "soft P=1: ", "note: ")) for line in rest)
