"""What the model answers without a prompt gets no credit as something that a prompt holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from promptlimits.capacity.search import baselines
from promptlimits.capacity.search.baselines import in_context, no_prompt
from promptlimits.capacity.train.evaluate import Evaluation
from promptlimits.nets.protocol import EncodedPair
from promptlimits.nets.routes.causal import HuggingFaceCausalLM

KEYS = ("France", "Italy", "red", "blue", "one", "two", "dog", "moon stone")


@torch.no_grad()
def said(model: HuggingFaceCausalLM, ids: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """The most likely tokens one after the other, by the slow loop."""
    network = model._model
    every = list(ids)
    for _ in range(tokens):
        every.append(int(network(input_ids=torch.tensor([every])).logits[0, -1].argmax()))
    return tuple(every[len(ids) :])


@pytest.fixture(scope="module")
def pairs(model: HuggingFaceCausalLM) -> tuple[EncodedPair, ...]:
    """What the model writes by itself, three tokens of it, whatever the last one is."""
    found = []
    for key in KEYS:
        ids = model.codec.encode_key(key)
        answer = said(model, ids, 3)
        value = model.codec.decode_value(answer[:-1])
        found.append(EncodedPair(key=key, value=value, key_ids=ids, value_ids=answer))
    return tuple(found)


def other(pair: EncodedPair) -> EncodedPair:
    """The pair with an answer that does not come."""
    first, *rest = pair.value_ids
    return dataclasses.replace(pair, value="other", value_ids=(first ^ 1, *rest, 0))


def test_any_answer_that_counts_and_comes_unprompted_is_answered(
    model: HuggingFaceCausalLM, pairs: tuple[EncodedPair, ...]
) -> None:
    assert no_prompt(model, pairs).exact == tuple(range(len(pairs)))
    wrong = tuple(map(other, pairs))
    assert no_prompt(model, wrong).exact == ()
    mixed = [
        dataclasses.replace(
            one, also=(("no", (7, 0)), (pair.value, pair.value_ids)) if number % 2 else ()
        )
        for number, (one, pair) in enumerate(zip(wrong, pairs, strict=True))
    ]
    done: list[int] = []
    found = no_prompt(model, mixed, on_chunk=done.append)
    assert found.exact == (1, 3, 5, 7)
    assert found.of == len(pairs)
    # Pairs are counted, not their answers.
    assert done[-1] == len(pairs)


def test_an_answer_that_ends_in_another_end_marker_of_the_model_is_answered(
    model: HuggingFaceCausalLM,
    pairs: tuple[EncodedPair, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No prompt gets credit for the marker: the model wrote the value and stopped by itself."""
    pair = pairs[0]
    came, trained = pair.value_ids[-1], pair.value_ids[-1] ^ 1
    ended = dataclasses.replace(pair, value_ids=(*pair.value_ids[:-1], trained))
    assert no_prompt(model, [ended]).exact == ()
    monkeypatch.setattr(model.codec, "_end_ids", (trained, came))
    assert no_prompt(model, [other(pair), ended]).exact == (1,)
    accepted = dataclasses.replace(other(pair), also=((ended.value, ended.value_ids),))
    assert no_prompt(model, [accepted, other(pair)]).exact == (0,)
    assert in_context(model, [ended], most_tokens=0).exact == (0,)


def test_in_context_counts_any_answer_too(
    model: HuggingFaceCausalLM, pairs: tuple[EncodedPair, ...]
) -> None:
    """Without room for a single pair in context, it is asked as it is without a prompt."""
    mixed = [dataclasses.replace(other(pairs[0]), also=((pairs[0].value, pairs[0].value_ids),))]
    assert in_context(model, mixed, most_tokens=0).exact == (0,)
    assert in_context(model, [other(pairs[0])], most_tokens=0).exact == ()


def test_a_pair_of_which_an_answer_was_not_tried_was_not_asked(
    model: HuggingFaceCausalLM, pairs: tuple[EncodedPair, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pairs with two answers each; time is up after three of the six answers."""
    several = [
        dataclasses.replace(other(pair), also=((pair.value, pair.value_ids),)) for pair in pairs[:3]
    ]
    whole = baselines.answers_behind

    def cut(*given: Any, **named: Any) -> Evaluation:
        found = whole(*given, **named)
        return dataclasses.replace(found, exact=found.exact[:3], loss_nats=found.loss_nats[:3])

    monkeypatch.setattr(baselines, "answers_behind", cut)
    found = no_prompt(model, several)
    assert (found.of, found.asked, found.exact) == (3, 1, (0,))
