"""A text searched by its beginnings: how many tokens from the first one on a witness writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.capacity.test_measure import Notes, without_times
from tests.capacity.witness.test_witness_forged import sign
from tests.capacity.witness.witness_cases import edit

from promptlimits.capacity.floor import find_floor
from promptlimits.capacity.measure import measure
from promptlimits.capacity.record import is_whole
from promptlimits.capacity.search.attempt import Workplace
from promptlimits.capacity.search.choice import Choice, choose
from promptlimits.capacity.search.control import Control, NoControl, run_control
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchConfig, SearchResult, search
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.beginnings import Beginnings, beginnings
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.text import TextSpec, text_task
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.evaluate import evaluate, tokens_in_a_row
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.witness.format import WITNESS_SCHEMA
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.routes.causal import HuggingFaceCausalLM
from promptlimits.report.record import parse_record
from promptlimits.testing.tiny_models import tiny_causal_lm

TEXT = "the dog and the cat: one two three of the big red house and then"
# Enough steps for a few tokens, too few for all of them.
TRAINING = TrainingConfig(prompt_tokens=2, learning_rate=0.3, max_steps=30, patience=30)
CONFIG = SearchConfig(training=TRAINING, first_size=2, starts=2)
LEAD = TRAINING.relative_lead


def never() -> None:
    """A stopper that never stops."""


def after(steps: int) -> Callable[[], Outcome | None]:
    """A stopper that lets so many steps through."""
    left = iter(range(steps))
    return lambda: Outcome.OUT_OF_BUDGET if next(left, None) is None else None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal_lm(tmp_path_factory.mktemp("tiny"), "gpt2")


@pytest.fixture(scope="module")
def model(tiny: Path) -> HuggingFaceCausalLM:
    parts = load_parts(str(tiny))
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def task_of(model: HuggingFaceCausalLM, tokens: int | None = None) -> EncodedTask:
    return text_task(TextSpec(text=TEXT, file="text.txt", tokens=tokens), model.codec)


@pytest.fixture(scope="module")
def task(model: HuggingFaceCausalLM) -> EncodedTask:
    return task_of(model)


@pytest.fixture(scope="module")
def text(model: HuggingFaceCausalLM, task: EncodedTask) -> Beginnings:
    found = beginnings(task, model.codec)
    assert found is not None
    return found


@pytest.fixture
def place(model: HuggingFaceCausalLM, tmp_path: Path) -> Iterator[Workplace]:
    with Store.open(tmp_path / "store.sqlite") as store:
        yield Workplace(model=model, store=store, task_hash="t", provenance={})


@pytest.fixture(scope="module")
def result(
    model: HuggingFaceCausalLM, text: Beginnings, tmp_path_factory: pytest.TempPathFactory
) -> SearchResult:
    """A search that nothing interrupts."""
    with Store.open(tmp_path_factory.mktemp("whole") / "store.sqlite") as store:
        place = Workplace(model=model, store=store, task_hash="t", provenance={})
        return search(place, text, CONFIG, warm=None, should_stop=never)


def facts(result: SearchResult) -> list[tuple[object, ...]]:
    return [
        (one.pairs, one.outcome, one.held, one.steps, one.seed, one.prompt.numpy().tobytes())
        for one in result.attempts
    ]


def test_a_search_ends_between_the_tokens_that_are_held_and_the_next(
    result: SearchResult, text: Beginnings, model: HuggingFaceCausalLM
) -> None:
    assert result.complete
    assert result.best is not None
    held = len(result.best.held)
    assert 2 <= held < len(text)
    assert (
        result.stopped_because
        == f"{held} tokens were solved and {held + 1} were not, in every start"
    )
    for one in result.attempts:
        said = [
            size
            for size in range(1, one.pairs + 1)
            if evaluate(model, one.prompt, [text[size - 1]], relative_lead=LEAD).held
        ]
        # A prompt that writes one beginning has written every shorter one.
        assert said == list(range(1, len(one.held) + 1))
        assert (one.outcome is Outcome.SOLVED) == (len(one.held) == one.pairs)


def test_an_attempt_that_failed_counts_for_its_tokens_in_a_row(result: SearchResult) -> None:
    assert any(one.held for one in result.attempts if one.outcome is not Outcome.SOLVED)


def test_a_search_stopped_at_every_seventh_step_ends_like_one_that_was_not(
    place: Workplace, text: Beginnings, result: SearchResult
) -> None:
    for _ in range(100):
        part = search(place, text, CONFIG, warm=None, should_stop=after(7))
        if part.complete:
            break
        assert part.stopped_because.startswith("the budget was used up while it trained for ")
        assert part.stopped_because.endswith(" tokens")
    assert facts(part) == facts(result)
    assert len(place.store.runs()) == len(result.attempts)


def test_runs_of_a_text_are_not_those_of_its_pair(
    place: Workplace, model: HuggingFaceCausalLM
) -> None:
    short = task_of(model, 1)
    text = beginnings(short, model.codec)
    assert text is not None
    quick = replace(CONFIG, training=replace(TRAINING, max_steps=2), starts=1)
    search(place, text, quick, warm=None, should_stop=never)
    search(place, short.pairs, quick, warm=None, should_stop=never)
    specs = [run.spec for run in place.store.runs()]
    assert [spec.get("tokens") for spec in specs] == [1, None]
    assert specs[0]["members"] == specs[1]["members"]


def test_the_control_is_as_long_as_the_beginning_that_failed(
    place: Workplace, text: Beginnings, result: SearchResult, model: HuggingFaceCausalLM
) -> None:
    assert result.best is not None
    control = run_control(place, text, TRAINING, result, should_stop=never)
    if isinstance(control, NoControl):
        assert control is NoControl.NOTHING_PLANTED
        pytest.fail("this plant is expected to have no near tie")
    assert isinstance(control, Control)
    assert control.pairs == len(result.best.held) + 1
    assert control.recovered <= control.pairs
    assert (control.outcome is Outcome.SOLVED) == (control.recovered == control.pairs)
    assert 1 <= control.distinct_answers <= control.pairs
    real = text[control.pairs - 1].value_ids
    assert control.list_distinct_answers == len(set(real))


# --- the witness ----------------------------------------------------------------------------


def chosen(
    model: HuggingFaceCausalLM,
    task: EncodedTask,
    result: SearchResult,
    place: Workplace,
    text: Beginnings,
) -> Choice:
    choice = choose(
        model,
        task,
        result.attempts,
        store=place.store,
        work={"work": "w"},
        relative_lead=LEAD,
        beginnings=text,
    )
    assert choice is not None
    return choice


@pytest.mark.usefixtures("in_this_process")
def test_the_floor_is_what_stock_tools_write_of_a_claim(
    place: Workplace,
    text: Beginnings,
    task: EncodedTask,
    result: SearchResult,
    model: HuggingFaceCausalLM,
    tmp_path: Path,
) -> None:
    choice = chosen(model, task, result, place, text)
    written = tokens_in_a_row(model, choice.prompt, text.longest)
    assert choice.held == tuple(range(written))
    for claimed in (written, written + 1, written + 5, len(text)):
        floor = find_floor(
            model,
            task,
            replace(choice, held=tuple(range(claimed))),
            folder=tmp_path,
            name="w",
            store=place.store,
            extra={},
            beginnings=text,
            listener=Notes(),
        )
        assert floor.held == floor.claimed == (written - 1,)
        said = json.loads((tmp_path / "w" / "witness.json").read_text(encoding="utf-8"))
        (pair,) = said["pairs"]
        assert pair["value_ids"] == list(text[written - 1].value_ids)
        assert (said["schema"], said["beginning"]) == (WITNESS_SCHEMA, True)


@pytest.mark.usefixtures("in_this_process")
def test_a_prompt_that_writes_nothing_of_a_claim_has_no_floor(
    place: Workplace,
    text: Beginnings,
    task: EncodedTask,
    model: HuggingFaceCausalLM,
    tmp_path: Path,
) -> None:
    nothing = torch.zeros(2, model.card.dim)
    assert tokens_in_a_row(model, nothing, text.longest) == 0
    floor = find_floor(
        model,
        task,
        Choice(prompt=nothing, held=(0, 1, 2)),
        folder=tmp_path,
        name="w",
        store=place.store,
        extra={},
        beginnings=text,
        listener=Notes(),
    )
    assert floor.held == ()


# --- the whole command ------------------------------------------------------------------------

REQUEST = Request(prompt_tokens=(2,), search=CONFIG, order=Order.EASIEST, budget_seconds=1e6)


def work(tiny: Path, folder: Path, request: Request = REQUEST, tokens: int | None = None) -> Any:
    parts = load_parts(str(tiny))
    model = HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)
    notes = Notes()
    with Store.open(folder / "store.sqlite") as store:
        task = task_of(model, tokens)
        record = measure(model, task, request, folder=folder, store=store, listener=notes)
    return record, notes.lines


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[str]]:
    folder = tmp_path_factory.mktemp("measured")
    return (folder, *work(tiny, folder))


@pytest.mark.slow  # decodes a prompt in a fresh process
def test_the_record_says_how_many_tokens_a_witness_writes(
    whole: tuple[Path, Any, list[str]], text: Beginnings, tiny: Path
) -> None:
    folder, record, lines = whole
    (bracket,) = record["brackets"]
    held, floor = bracket["floor"]["tokens"], bracket["floor"]
    assert 2 <= held < len(text)
    assert (floor["status"], floor["pairs"]) == ("found", 0)
    assert bracket["search"][-1].keys() >= {"tokens", "held"}
    assert (
        "fewer tokens"
        in {one["outcome"]: one for one in bracket["search"]}["out_of_steps"]["remedy"]
    )
    assert bracket["control"]["tokens"] == held + 1
    assert record["task"]["order"] == "from the first token on"
    assert (
        f"2 prompt tokens: {held} of {len(text)} tokens, from the first on, found and confirmed"
        in lines
    )
    parsed = parse_record(record).brackets[0]
    assert (parsed.floor.held, parsed.search[0].pairs) == (held, 2)
    verified = verify_witness(folder / floor["witness"], model_path=str(tiny))
    (answer,) = verified.answers
    assert answer.exact
    assert answer.generated_ids == text[held - 1].value_ids
    assert is_whole(record, folder)


@pytest.mark.slow  # beside a command that decodes in a fresh process
@pytest.mark.usefixtures("in_this_process")
def test_a_command_cut_off_twice_ends_with_the_same_floor(
    tiny: Path, whole: tuple[Path, Any, list[str]], tmp_path: Path
) -> None:
    for seconds in (0.15, 0.6):
        part, _ = work(tiny, tmp_path, replace(REQUEST, budget_seconds=seconds))
        assert part["brackets"][0]["floor"]["tokens"] <= whole[1]["brackets"][0]["floor"]["tokens"]
    record, _ = work(tiny, tmp_path)
    assert without_times(record["brackets"]) == without_times(whole[1]["brackets"])


@pytest.mark.slow  # beside a command that decodes in a fresh process
@pytest.mark.usefixtures("in_this_process")
def test_a_shorter_witness_in_its_place_is_made_anew(
    tiny: Path, whole: tuple[Path, Any, list[str]], text: Beginnings
) -> None:
    folder, record, _ = whole
    floor = record["brackets"][0]["floor"]
    directory = folder / floor["witness"]

    def shorten(document: Any) -> None:
        shorter = text[floor["tokens"] - 2]
        document["pairs"][0] |= {"value": shorter.value, "value_ids": list(shorter.value_ids)}
        document["verification"]["answers"][0] |= {"value": shorter.value}

    edit(directory, "witness.json", shorten)
    sign(directory)
    assert not is_whole(record, folder)
    again, _ = work(tiny, folder)
    assert again["brackets"][0]["floor"] == floor
    assert is_whole(again, folder)


@pytest.mark.usefixtures("in_this_process")
def test_a_whole_text_is_held_with_its_end_marker(tiny: Path, tmp_path: Path) -> None:
    easy = replace(TRAINING, prompt_tokens=4, max_steps=300, patience=300)
    request = replace(REQUEST, prompt_tokens=(4,), search=replace(CONFIG, training=easy))
    record, _ = work(tiny, tmp_path, request, tokens=3)
    (bracket,) = record["brackets"]
    assert (bracket["floor"]["tokens"], bracket["floor"]["pairs"]) == (3, 1)
    assert bracket["control"] is None
    assert bracket["stopped_because"] == "the whole text is held"
    said = json.loads((tmp_path / bracket["floor"]["witness"] / "witness.json").read_text("utf-8"))
    assert (said["schema"], said.get("beginning", False)) == (WITNESS_SCHEMA, False)
    assert len(said["pairs"][0]["value_ids"]) == 4
