"""What training held and stock tools do not confirm is said, counted and never passed over."""

import dataclasses
import math

import pytest

from promptlimits.capacity import floor as floor_module
from promptlimits.capacity.floor import Floor, loss_json, loss_warnings, losses, replay_loss
from promptlimits.capacity.measure import measure
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.witness.format import write_verification
from promptlimits.capacity.witness.verification import Answer, Verification
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.report.record import parse_record

REQUEST = Request(
    prompt_tokens=(4,),
    search=SearchConfig(
        training=TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=60, patience=30),
        first_size=2,
    ),
    order=Order.EASIEST,
    budget_seconds=math.inf,
    control=False,
)


class Nobody:
    """A listener that keeps nothing."""

    def __getattr__(self, _name):
        return lambda *_: None


def floor_of(exact, *, held_in_training, of_text=False, claimed=None):
    answers = tuple(
        Answer(key=str(index), value="", decoded="", generated_ids=(), exact=one)
        for index, one in enumerate(exact)
    )
    return Floor(
        witness="w",
        verification=Verification(
            answers=answers,
            confirmed_by="",
            prompt_sha256="",
            model_hash="",
            same_weights=True,
            created="",
            seconds=0.0,
            versions={},
        ),
        claimed=tuple(range(len(exact))) if claimed is None else claimed,
        held_in_training=held_in_training,
        of_text=of_text,
    )


def test_nothing_is_lost_where_all_is_confirmed():
    assert replay_loss(floor_of([True, True], held_in_training=2)) is None
    assert replay_loss(Floor(witness=None, verification=None, claimed=())) is None
    text = floor_of([True], held_in_training=5, of_text=True, claimed=(4,))
    assert replay_loss(text) is None
    assert loss_json(text) is None


@pytest.mark.parametrize(
    ("floor", "sentence"),
    [
        (
            floor_of([False] * 7, held_in_training=7),
            "training held 7 pairs, stock tools confirmed none of them",
        ),
        (
            floor_of([True, False, True], held_in_training=3),
            "training held 3 pairs, stock tools confirmed 2 of them",
        ),
        (
            floor_of([False], held_in_training=1),
            "training held 1 pair, stock tools confirmed none of them",
        ),
        (
            floor_of([True], held_in_training=9, of_text=True, claimed=(3,)),
            "training held 9 tokens, stock tools confirmed 4 of them",
        ),
    ],
)
def test_a_loss_is_said_with_both_numbers(floor, sentence):
    assert str(replay_loss(floor)) == sentence
    assert loss_warnings(floor, "1 prompt token") == [
        f"1 prompt token: {sentence}; only those count"
    ]


@pytest.fixture
def losing(monkeypatch):
    """Stock tools that lose as many pairs as they are told to, or all."""
    lost = {"pairs": None}

    def confirm(directory, *, model_path, on_progress):
        found = verify_witness(directory, model_path=model_path)
        answers = tuple(
            dataclasses.replace(answer, exact=False, fault="another answer")
            if lost["pairs"] is None or index < lost["pairs"]
            else answer
            for index, answer in enumerate(found.answers)
        )
        found = dataclasses.replace(found, answers=answers)
        write_verification(directory, found)
        return found

    monkeypatch.setattr(floor_module, "confirm", confirm)
    return lost


def measured(model, folder):
    task = random_pairs(model.codec, count=6, seed=0)
    with Store.open(folder / "store.sqlite") as store:
        return measure(model, task, REQUEST, folder=folder, store=store, listener=Nobody())


@pytest.mark.slow  # trains a prompt for six pairs
def test_what_is_lost_is_on_record_and_is_decoded_again_by_other_tools(
    model, losing, monkeypatch, tmp_path
):
    record = measured(model, tmp_path)
    (bracket,) = record["brackets"]
    loss = bracket["floor"]["lost_in_replay"]
    held = loss["held_in_training"]
    assert held >= 2
    assert loss == {"held_in_training": held, "confirmed": 0, "unit": "pair"}
    assert bracket["floor"]["pairs"] == 0
    sentence = f"training held {held} pairs, stock tools confirmed none of them"
    assert record["warnings"] == [f"4 prompt tokens: {sentence}; only those count"]
    assert losses(record, whole=True) == (f"soft prompt of length 4: {sentence}",)
    assert losses(record, whole=False) == ()
    parse_record(record)

    # With tools of another version all of it holds but for one pair; nothing is trained again.
    monkeypatch.setattr(floor_module, "stock_tools", lambda _dtype: "other tools")
    losing["pairs"] = 1
    again = measured(model, tmp_path)
    assert again["brackets"][0]["floor"]["pairs"] == held - 1
    sentence = f"training held {held} pairs, stock tools confirmed {held - 1} of them"
    assert losses(again, whole=False) == (f"soft prompt of length 4: {sentence}",)
    assert losses(again, whole=True) == ()
    assert [one["seconds"] for one in again["brackets"][0]["search"]] == [
        one["seconds"] for one in bracket["search"]
    ]
