"""A text held token by token: its targets, its witness, and the whole command."""

import json
from dataclasses import replace

import pytest
import torch
from tests.capacity.cases import Notes, measured, never, without_times
from tests.capacity.witness.test_witness_forged import sign
from tests.capacity.witness.witness_cases import edit

from promptlimits.capacity.floor import find_floor
from promptlimits.capacity.record import is_whole
from promptlimits.capacity.search.attempt import attempt
from promptlimits.capacity.search.choice import Choice, choose
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.task.text import TextSpec, text_task
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Outcome
from promptlimits.capacity.train.state import TrainingState
from promptlimits.capacity.witness.format import WITNESS_SCHEMA, save_witness
from promptlimits.capacity.witness.fresh_process import Verifier
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.record.record import read_record

TEXT = "the dog and the cat: one two three of the big red house and then"
# Enough steps for a few tokens, too few for all of them.
TRAINING = TrainingConfig(prompt_tokens=2, learning_rate=0.3, max_steps=30, patience=30)
EASY = replace(TRAINING, prompt_tokens=4, max_steps=300, patience=300)
CONFIG = SearchConfig(training=TRAINING, first_size=2, starts=2)
LEAD = TRAINING.relative_lead
REQUEST = Request(prompt_tokens=(2,), search=CONFIG, order=Order.EASIEST, budget_seconds=1e6)


def task_of(model, tokens=None):
    return text_task(TextSpec(text=TEXT, file="text.txt", tokens=tokens), model.codec)


@pytest.fixture(scope="module")
def task(model):
    return task_of(model)


# --- the witness ----------------------------------------------------------------------------


def floor_of(place, task, prompt, claimed, folder):
    choice = Choice(state=TrainingState.start(prompt, 1), held=tuple(range(claimed)))
    return find_floor(
        place,
        task,
        task.targets,
        choice,
        folder=folder,
        extra={},
        listener=Notes(),
        verifier=Verifier(model_path=place.model.card.path),
    )


@pytest.mark.usefixtures("in_this_process")
def test_the_floor_is_what_stock_tools_write_of_a_claim(place, task, tmp_path):
    targets = task.targets
    done = attempt(place, targets.first(4), TRAINING, warm=None, should_stop=never)
    choice = choose(place, targets, [done], work={"work": "w"}, relative_lead=LEAD)
    (written,) = evaluate(place.model, choice.prompt, task.pairs).right
    assert written >= 2
    assert choice.held == tuple(range(written))
    for claimed in (written, written + 1, written + 5, len(targets)):
        floor = floor_of(place, task, choice.prompt, claimed, tmp_path / "w")
        assert floor.held == floor.claimed == (written - 1,)
        said = json.loads((tmp_path / "w" / "witness.json").read_text(encoding="utf-8"))
        (pair,) = said["pairs"]
        assert pair["value_ids"] == list(targets.member(written - 1).value_ids)
        assert (said["schema"], said["beginning"]) == (WITNESS_SCHEMA, True)


@pytest.mark.usefixtures("in_this_process")
def test_a_prompt_that_writes_nothing_of_a_claim_has_no_floor(place, task, tmp_path):
    nothing = torch.zeros(2, place.model.card.dim)
    assert evaluate(place.model, nothing, task.pairs).right == (0,)
    assert floor_of(place, task, nothing, 3, tmp_path / "w").held == ()


def random_task(model):
    """A text of random tokens behind a random key: the case of the theorem."""
    return random_pairs(model.codec, count=1, value_tokens=6, seed=1)


@pytest.mark.slow  # trains for some fifty steps, and decodes with stock tools
@pytest.mark.parametrize("make", [lambda model: task_of(model, 6), random_task])
def test_a_prompt_holds_a_text_as_one_pair_and_stock_tools_say_so(make, place, tiny_gpt2, tmp_path):
    task = make(place.model)
    (pair,) = task.pairs
    assert (len(pair.key_ids), len(pair.value_ids)) == (1, 7)
    done = attempt(place, task.targets, EASY, warm=None, should_stop=never)
    assert done.outcome is Outcome.SOLVED
    save_witness(
        tmp_path / "witness",
        prompt=done.prompt,
        card=place.model.card,
        task_name=task.name,
        task_hash=task.hash,
        pairs=task.pairs,
        keys_as=task.keys_as,
    )
    (answer,) = verify_witness(tmp_path / "witness", model_path=str(tiny_gpt2)).answers
    assert answer.exact, answer.fault
    assert answer.generated_ids == pair.value_ids
    if not task.answers_random:
        assert TEXT.startswith(answer.decoded)
        assert answer.decoded == pair.value


# --- the whole command ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(model, task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    record, notes = measured(model, task, REQUEST, folder)
    return folder, record, notes.lines


@pytest.mark.slow  # decodes a prompt in a fresh process
def test_the_record_says_how_many_tokens_a_witness_writes(whole, task, tiny_gpt2):
    (folder, record, lines), targets = whole, task.targets
    (bracket,) = record["brackets"]
    held, floor = bracket["floor"]["tokens"], bracket["floor"]
    assert 2 <= held < len(targets)
    assert (floor["status"], floor["pairs"]) == ("found", 0)
    assert bracket["search"][-1].keys() >= {"tokens", "held"}
    remedies = {one["outcome"]: one["remedy"] for one in bracket["search"]}
    assert "fewer tokens" in remedies["out_of_steps"]
    assert bracket["control"]["tokens"] == held + 1
    assert record["task"]["order"] == "from the first token on"
    said = f"{held} of {len(targets)} tokens found and confirmed, from the first on"
    assert f"2 prompt tokens: {said}" in lines
    parsed = read_record(record).brackets[0]
    assert (parsed.floor.held, parsed.search[0].tokens) == (held, 2)
    (answer,) = verify_witness(folder / floor["witness"], model_path=str(tiny_gpt2)).answers
    assert answer.exact
    assert answer.generated_ids == targets.member(held - 1).value_ids
    assert is_whole(read_record(record), folder)


@pytest.mark.slow  # beside a command that decodes in a fresh process
@pytest.mark.usefixtures("in_this_process")
def test_a_command_cut_off_twice_ends_with_the_same_floor(model, task, whole, tmp_path):
    for seconds in (0.15, 0.6):
        part, _ = measured(model, task, replace(REQUEST, budget_seconds=seconds), tmp_path)
        assert part["brackets"][0]["floor"]["tokens"] <= whole[1]["brackets"][0]["floor"]["tokens"]
    record, _ = measured(model, task, REQUEST, tmp_path)
    assert without_times(record["brackets"]) == without_times(whole[1]["brackets"])


@pytest.mark.slow  # beside a command that decodes in a fresh process
@pytest.mark.usefixtures("in_this_process")
def test_a_shorter_witness_in_its_place_is_made_anew(model, task, whole):
    folder, record, _ = whole
    floor = record["brackets"][0]["floor"]
    directory = folder / floor["witness"]

    def shorten(document):
        shorter = task.targets.member(floor["tokens"] - 2)
        document["pairs"][0] |= {"value": shorter.value, "value_ids": list(shorter.value_ids)}
        document["verification"]["answers"][0] |= {"value": shorter.value, "came": shorter.value}

    edit(directory, "witness.json", shorten)
    sign(directory)
    assert not is_whole(read_record(record), folder)
    again, _ = measured(model, task, REQUEST, folder)
    assert again["brackets"][0]["floor"] == floor
    assert is_whole(read_record(again), folder)


@pytest.mark.usefixtures("in_this_process")
def test_a_whole_text_is_held_with_its_end_marker(model, tmp_path):
    request = replace(REQUEST, prompt_tokens=(4,), search=replace(CONFIG, training=EASY))
    record, _ = measured(model, task_of(model, 3), request, tmp_path)
    (bracket,) = record["brackets"]
    assert (bracket["floor"]["tokens"], bracket["floor"]["pairs"]) == (3, 1)
    assert bracket["control"] is None
    assert bracket["stopped_because"] == "the whole text is held"
    said = json.loads((tmp_path / bracket["floor"]["witness"] / "witness.json").read_text("utf-8"))
    assert (said["schema"], said["beginning"]) == (WITNESS_SCHEMA, False)
    assert len(said["pairs"][0]["value_ids"]) == 4
