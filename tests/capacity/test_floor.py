"""What training held and stock tools do not confirm is said, counted and never passed over."""

import math

import pytest
from tests.capacity.cases import measured, verified

from promptlimits.capacity import floor as floor_module
from promptlimits.capacity.floor import Floor
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.task.targets import Targets, TextTargets
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.witness.format import write_verification
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.protocol import EncodedPair
from promptlimits.record.record import losses, read_record

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


PAIRS = Targets.of([])
TEXT = TextTargets(
    every=(EncodedPair(key="", value="", key_ids=(1,), value_ids=(*range(9), 0)),),
    size=9,
    decode=str,
)


def floor_of(exact, *, held_in_training, targets=PAIRS, claimed=None):
    return Floor(
        targets=targets,
        witness="w",
        verification=verified(exact),
        claimed=tuple(range(len(exact))) if claimed is None else claimed,
        held_in_training=held_in_training,
    )


def test_nothing_is_lost_where_all_is_confirmed():
    assert floor_of([True, True], held_in_training=2).loss is None
    assert Floor(targets=PAIRS).loss is None
    text = floor_of([True], held_in_training=5, targets=TEXT, claimed=(4,))
    assert text.loss is None


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
            floor_of([True], held_in_training=9, targets=TEXT, claimed=(3,)),
            "training held 9 tokens, stock tools confirmed 4 of them",
        ),
    ],
)
def test_a_loss_is_said_with_both_numbers(floor, sentence):
    assert str(floor.loss) == sentence


@pytest.fixture
def losing(monkeypatch):
    """Stock tools that lose as many pairs as they are told to, or all."""
    lost = {"pairs": None}

    def confirm(directory, verifier, *, on_progress):
        found = verify_witness(directory, model_path=verifier.model_path)
        answers = tuple(
            answer.model_copy(update={"exact": False, "counted": False, "fault": "another answer"})
            if lost["pairs"] is None or index < lost["pairs"]
            else answer
            for index, answer in enumerate(found.answers)
        )
        exact = sum(answer.exact for answer in answers)
        found = found.model_copy(update={"answers": answers, "pairs_exact": exact})
        write_verification(directory, found)
        return found

    monkeypatch.setattr(floor_module, "confirm", confirm)
    return lost


@pytest.mark.slow  # trains a prompt for six pairs
def test_what_is_lost_is_on_record_and_is_decoded_again_by_other_tools(
    model, losing, monkeypatch, tmp_path
):
    task = random_pairs(model.codec, count=6, seed=0)
    record, _ = measured(model, task, REQUEST, tmp_path)
    (bracket,) = record["brackets"]
    loss = bracket["floor"]["lost_in_replay"]
    held = loss["held_in_training"]
    assert held >= 2
    assert loss == {"held_in_training": held, "confirmed": 0, "unit": "pair"}
    assert bracket["floor"]["pairs"] == 0
    sentence = f"training held {held} pairs, stock tools confirmed none of them"
    assert record["warnings"] == [f"4 prompt tokens: {sentence}; only those count"]
    assert losses(read_record(record), whole=True) == (f"soft prompt of length 4: {sentence}",)
    assert losses(read_record(record), whole=False) == ()

    # With tools of another version all of it holds but for one pair; nothing is trained again.
    monkeypatch.setattr(floor_module, "stock_tools", lambda _dtype: "other tools")
    losing["pairs"] = 1
    again, _ = measured(model, task, REQUEST, tmp_path)
    assert again["brackets"][0]["floor"]["pairs"] == held - 1
    sentence = f"training held {held} pairs, stock tools confirmed {held - 1} of them"
    assert losses(read_record(again), whole=False) == (f"soft prompt of length 4: {sentence}",)
    assert losses(read_record(again), whole=True) == ()
    assert [one["seconds"] for one in again["brackets"][0]["search"]] == [
        one["seconds"] for one in bracket["search"]
    ]
