"""What the model answers without a prompt gets no credit as something that a prompt holds."""

import dataclasses
from unittest.mock import Mock

import pytest
import torch
from tests.capacity.cases import after

from promptlimits.base.errors import UserError
from promptlimits.capacity.search import baselines
from promptlimits.capacity.search.baselines import Unprompted, answered, in_context
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.task.text import TextSpec, text_task
from promptlimits.capacity.train import evaluate
from promptlimits.nets.protocol import EncodedPair
from promptlimits.record.parts import Baseline

KEYS = ("France", "Italy", "red", "blue", "one", "two", "dog", "moon stone")


@torch.no_grad()
def said(model, ids, tokens):
    """The most likely tokens one after the other, by the slow loop."""
    network = model._model
    every = list(ids)
    for _ in range(tokens):
        every.append(int(network(input_ids=torch.tensor([every])).logits[0, -1].argmax()))
    return tuple(every[len(ids) :])


@pytest.fixture(scope="module")
def pairs(model):
    """What the model writes by itself, three tokens of it, whatever the last one is."""
    found = []
    for key in KEYS:
        ids = model.codec.encode_key(key)
        answer = said(model, ids, 3)
        value = model.codec.decode_value(answer[:-1])
        found.append(EncodedPair(key=key, value=value, key_ids=ids, value_ids=answer))
    return tuple(found)


def in_context_of(model, pairs, most_tokens=None):
    return in_context(model, pairs, Targets.of(pairs), most_tokens=most_tokens)


def other(pair):
    """The pair with an answer that does not come."""
    first, *rest = pair.value_ids
    return dataclasses.replace(pair, value="other", value_ids=(first ^ 1, *rest, 0))


def test_any_answer_that_counts_and_comes_unprompted_is_answered(model, pairs):
    assert answered(model, (), pairs).exact == tuple(range(len(pairs)))
    wrong = tuple(map(other, pairs))
    assert answered(model, (), wrong).exact == ()
    mixed = [
        dataclasses.replace(
            one, also=(("no", (7, 0)), (pair.value, pair.value_ids)) if number % 2 else ()
        )
        for number, (one, pair) in enumerate(zip(wrong, pairs, strict=True))
    ]
    done = []
    found = answered(model, (), mixed, on_chunk=done.append)
    assert found.exact == (1, 3, 5, 7)
    assert found.asked == len(pairs)
    # Pairs are counted, not their answers.
    assert done[-1] == len(pairs)


def test_an_answer_that_ends_in_another_end_marker_of_the_model_is_answered(
    model, pairs, monkeypatch
):
    """No prompt gets credit for the marker: the model wrote the value and stopped by itself."""
    pair = pairs[0]
    came, trained = pair.value_ids[-1], pair.value_ids[-1] ^ 1
    ended = dataclasses.replace(pair, value_ids=(*pair.value_ids[:-1], trained))
    assert answered(model, (), [ended]).exact == ()
    monkeypatch.setattr(model.codec, "end_ids", (trained, came))
    assert answered(model, (), [other(pair), ended]).exact == (1,)
    accepted = dataclasses.replace(other(pair), also=((ended.value, ended.value_ids),))
    assert answered(model, (), [accepted, other(pair)]).exact == (0,)
    assert in_context_of(model, [ended], most_tokens=0).exact == (0,)


def test_in_context_counts_any_answer_too(model, pairs):
    """Without room for a single pair in context, it is asked as it is without a prompt."""
    mixed = [dataclasses.replace(other(pairs[0]), also=((pairs[0].value, pairs[0].value_ids),))]
    assert in_context_of(model, mixed, most_tokens=0).exact == (0,)
    assert in_context_of(model, [other(pairs[0])], most_tokens=0).exact == ()


def test_a_pair_of_which_an_answer_was_not_tried_was_not_asked(model, pairs, monkeypatch):
    """Three pairs with two answers each; time is up after three of the six answers."""
    several = [
        dataclasses.replace(other(pair), also=((pair.value, pair.value_ids),)) for pair in pairs[:3]
    ]
    whole = baselines.answers_behind

    def cut(*given, **named):
        found = whole(*given, **named)
        return dataclasses.replace(found, right=found.right[:3], lengths=found.lengths[:3])

    monkeypatch.setattr(baselines, "answers_behind", cut)
    found = answered(model, (), several)
    assert (found.asked, found.exact) == (1, (0,))


def test_in_context_shows_as_many_pairs_as_fit(model):
    pairs = random_pairs(model.codec, count=8, seed=0).pairs
    each = len(pairs[0].key_ids) + len(pairs[0].value_ids)
    every = in_context_of(model, pairs)
    assert every.shots == 8
    few = in_context_of(model, pairs, most_tokens=3 * each + 1)
    assert (few.shots, few.context_tokens) == (3, 3 * each)
    assert "5 pairs did not fit" in few.note
    # A pair that stands right in front of its own question, by the slow loop.
    context = tuple(token for pair in pairs for token in pair.key_ids + pair.value_ids)
    came = said(model, context + pairs[2].key_ids, len(pairs[2].value_ids))
    assert (2 in every.exact) == (came == pairs[2].value_ids)


@pytest.fixture(scope="module")
def known(model):
    """Six pairs, the second and the fifth of which the model answers by itself."""
    every = list(random_pairs(model.codec, count=6, seed=0).pairs)
    for index in (1, 4):
        own = said(model, every[index].key_ids, 1)
        every[index] = dataclasses.replace(every[index], value_ids=own)
    return Targets.of(every)


def test_only_what_is_needed_is_asked_and_never_twice(place, known, monkeypatch):
    asked = []

    def counted(model, context, pairs, **options):
        asked.extend(known.every.index(pair) for pair in pairs)
        return answered(model, context, pairs, **options)

    monkeypatch.setattr(baselines, "answered", counted)
    first = Unprompted(place, known.every, known)
    assert first.among([4, 2]) == {4}
    assert first.among([2]) == frozenset()
    assert sorted(asked) == [2, 4]
    # Another call of the command goes on where this one stopped.
    whole = Unprompted(place, known.every, known).baseline()
    assert (whole.measured, whole.exact) == (True, (1, 4))
    assert sorted(asked) == [0, 1, 2, 3, 4, 5]
    assert Unprompted(place, known.every, known).baseline() == whole
    assert Baseline.model_validate(whole.to_json()) == whole


def test_a_list_that_was_not_asked_in_full_is_not_measured(place, known, monkeypatch):
    # One pair in each chunk.
    monkeypatch.setattr(evaluate, "_LOGIT_BYTES", 1)
    cut = Unprompted(place, known.every, known).baseline(should_stop=after(1))
    assert (cut.asked, cut.measured) == (2, False)
    assert (cut.status, cut.pairs) == ("not measured", None)
    whole = Unprompted(place, known.every, known).baseline()
    assert (whole.asked, whole.exact) == (6, (1, 4))


def test_of_a_text_the_tokens_that_come_from_the_first_on_need_no_prompt(place, model):
    text = text_task(TextSpec(text="the dog and the cat: one two", file="t.txt"), model.codec)
    (pair,) = text.pairs
    own = said(model, pair.key_ids, 2)
    value_ids = (*own, own[-1] ^ 1, model.codec.end_id)
    text = dataclasses.replace(text, pairs=(dataclasses.replace(pair, value_ids=value_ids),))
    unprompted = Unprompted(place, text.pairs, text.targets)
    assert unprompted.among([0, 1, 2]) == {0, 1}
    assert unprompted.baseline().count == 2


@pytest.mark.parametrize("cached", [True, False])
def test_a_context_is_run_once_and_answers_as_if_it_were_read_with_each_chunk(
    model, monkeypatch, cached
):
    """Against the context read as a prompt; chunks of one pair, and one that ends otherwise."""
    pairs = random_pairs(model.codec, count=8, seed=0).pairs
    context = baselines.written_out(pairs[:5])
    ids = torch.tensor(context)
    read = evaluate.evaluate(model, model.embed(ids), pairs)
    if not cached:  # as for a family whose cache is no prefix
        refused = UserError("prompts", "be replayed", got="none", remedy="none")
        monkeypatch.setattr(model, "step_bytes", Mock(side_effect=refused))
    monkeypatch.setattr(evaluate, "_LOGIT_BYTES", 1)
    prefix = Mock(side_effect=model.prefix_from_tokens)
    monkeypatch.setattr(model, "prefix_from_tokens", prefix)
    found = baselines.answers_behind(model, context, pairs)
    assert found.right == read.right
    assert found.loss_nats == pytest.approx(read.loss_nats, rel=1e-5)
    assert prefix.call_count == cached
    prefix.reset_mock()
    monkeypatch.setattr(model.codec, "end_ids", (model.codec.end_id, 3))
    answered(
        model,
        context,
        [
            dataclasses.replace(
                pairs[0], value_ids=(*said(model, (*context, *pairs[0].key_ids), 2), 3)
            )
        ],
    )
    assert prefix.call_count == cached
