"""What stock decoding confirms is what the model answers behind the prompt, and no more."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from tests.capacity.witness.witness_cases import answering, edit, wrong

from promptlimits.capacity.witness.verify import verify_witness


def test_the_prompt_is_what_answers(each_kind, tmp_path):
    """Behind another prompt hardly a pair holds: the decoding does see the prompt."""
    other = each_kind.save(tmp_path / "w", prompt=each_kind.prompt.flip(0).neg())
    assert each_kind.verify(other).pairs_exact < len(each_kind.pairs)


def test_a_wrong_answer_is_not_counted(each_kind, tmp_path):
    first, *rest = each_kind.pairs
    pairs = (wrong(each_kind, first), *rest)
    found = each_kind.verify(each_kind.save(tmp_path / "w", pairs=pairs))
    assert [a.exact for a in found.answers] == [False] + [True] * len(rest)
    assert found.pairs_exact == len(rest)
    assert found.answers[0].fault == "another answer"
    assert found.answers[0].generated_ids == first.value_ids


def test_an_answer_that_goes_on_is_not_exact(case, tmp_path):
    """The end marker is part of the answer: a right beginning is not enough."""
    long = case.pairs[0]
    cut = answering(case, long, (*long.value_ids[:-2], long.value_ids[-1]))
    (answer,) = case.verify(case.save(tmp_path / "w", pairs=(cut,))).answers
    assert (answer.exact, answer.fault) == (False, "the answer goes on where it should end")


@pytest.mark.parametrize("keys_as", ["text", "ids"])
@pytest.mark.parametrize(
    "change", [lambda key: key + "!", lambda key: " ".join(["Tokyo"] * len(key.split()))]
)
def test_a_key_that_the_tokenizer_reads_otherwise_is_not_exact(case, tmp_path, change, keys_as):
    first, *rest = case.pairs
    misread = dataclasses.replace(first, key=change(first.key))
    found = case.verify(case.save(tmp_path / "w", pairs=(misread, *rest), keys_as=keys_as))
    assert [a.exact for a in found.answers] == [False] + [True] * len(rest)
    assert "reads the key as other ids" in found.answers[0].fault


def test_settings_that_come_with_a_model_do_not_bend_greedy(case, tmp_path):
    model = Path(shutil.copytree(case.model, tmp_path / "model"))
    settings = {"repetition_penalty": 9.0, "do_sample": True, "temperature": 5.0}
    edit(model, "generation_config.json", lambda config: config.update(settings))
    directory = case.save(tmp_path / "w")
    assert verify_witness(directory, model_path=str(model), any_weights=True).pairs_exact == len(
        case.pairs
    )


def test_every_end_marker_of_the_model_ends_an_answer(case, tmp_path):
    """Stock `generate` stops at any of them, so an answer that holds one cannot be replayed."""
    long = case.pairs[0]
    model = Path(shutil.copytree(case.model, tmp_path / "model"))
    stop = {"eos_token_id": [long.value_ids[-1], long.value_ids[0]]}
    edit(model, "generation_config.json", lambda config: config.update(stop))
    directory = case.save(tmp_path / "w", pairs=(long,))
    (answer,) = verify_witness(directory, model_path=str(model), any_weights=True).answers
    assert answer.generated_ids == long.value_ids[:1]
    assert not answer.exact


@pytest.mark.parametrize(
    ("dtype", "together"), [("float32", 16), ("float64", 16), ("bfloat16", 1), ("float16", 1)]
)
def test_in_16_bits_keys_are_decoded_alone_as_replay_decodes_them(cases, tmp_path, dtype, together):
    case = cases("llama")
    card = dataclasses.replace(case.card, compute_dtype=dtype)
    found = case.verify(case.save(tmp_path / "w", card=card))
    assert found.versions["batch_size"] == together
    assert found.confirmed_by.endswith(dtype)
