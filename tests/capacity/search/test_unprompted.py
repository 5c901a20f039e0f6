"""Pairs that need no prompt are asked when somebody needs to know, and once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from promptlimits.capacity.search import unprompted as module
from promptlimits.capacity.search.baselines import Unprompted, no_prompt
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.nets.routes.causal import HuggingFaceCausalLM


@pytest.fixture(scope="module")
def task(model: HuggingFaceCausalLM) -> EncodedTask:
    """Six pairs, the second and the fifth of which the model answers by itself."""
    drawn = random_pairs(model.codec, count=6, seed=0)
    end = model.codec.end_id
    pairs = list(drawn.pairs)
    for index in (1, 4):
        for token in range(model.card.vocabulary):
            own = replace(pairs[index], value_ids=(token,))
            if token != end and no_prompt(model, [own]).exact:
                pairs[index] = own
    return replace(drawn, pairs=tuple(pairs))


def test_only_what_is_needed_is_asked_and_never_twice(
    model: HuggingFaceCausalLM, task: EncodedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(model: HuggingFaceCausalLM, pairs, **options):  # type: ignore[no-untyped-def]
        asked.extend(task.pairs.index(pair) for pair in pairs)
        return no_prompt(model, pairs, **options)

    monkeypatch.setattr(module, "no_prompt", counted)
    with Store.open(tmp_path / "store.sqlite") as store:
        first = Unprompted(model, task, store)
        assert first.among([4, 2]) == {4}
        assert first.among([2]) == frozenset()
        assert sorted(asked) == [2, 4]
        # Another call of the command goes on where this one stopped.
        again = Unprompted(model, task, store)
        whole = again.baseline()
        assert (whole.measured, whole.exact) == (True, (1, 4))
        assert sorted(asked) == [0, 1, 2, 3, 4, 5]
        assert Unprompted(model, task, store).baseline() == whole


def test_a_list_that_was_not_asked_in_full_is_not_measured(
    model: HuggingFaceCausalLM, task: EncodedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from promptlimits.capacity.train import evaluate

    # One pair in each chunk.
    monkeypatch.setattr(evaluate, "_LOGIT_BYTES", 1)
    stops = iter([None, Outcome.OUT_OF_BUDGET])
    with Store.open(tmp_path / "store.sqlite") as store:
        cut = Unprompted(model, task, store).baseline(should_stop=lambda: next(stops))
        assert (cut.asked, cut.measured) == (2, False)
        shown = cut.to_json()
        assert (shown["status"], shown["pairs"]) == ("not measured", None)
        whole = Unprompted(model, task, store).baseline()
    assert (whole.asked, whole.exact) == (6, (1, 4))
