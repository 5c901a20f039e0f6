"""Soft prompts and prefixes in one record, each with its own floor, ceiling and witness."""

import json
import math
from dataclasses import replace

import pytest
from tests.capacity.cases import loaded, measured
from tests.capacity.witness.witness_cases import edit

from promptlimits.base.errors import UserError
from promptlimits.capacity.ceiling import task_ceiling
from promptlimits.capacity.search.ordering import Order
from promptlimits.capacity.search.request import PromptSize, Request
from promptlimits.capacity.search.search import SearchConfig
from promptlimits.capacity.task.random_tokens import random_pairs
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.witness.format import read_witness
from promptlimits.certificates import check_certificate
from promptlimits.nets.protocol import PromptKind
from promptlimits.nets.routes.causal import HuggingFaceCausalLM
from promptlimits.record.record import read_record
from promptlimits.testing.tiny_models import tiny_causal_lm

TRAINING = TrainingConfig(prompt_tokens=1, max_steps=60, patience=30)
REQUEST = Request(
    prompt_tokens=(2,),
    search=SearchConfig(training=TRAINING, first_size=2, starts=1),
    order=Order.GIVEN,
    budget_seconds=math.inf,
    in_context_tokens=0,
    kinds=(PromptKind.SOFT, PromptKind.PREFIX),
)
WIDTH = 64
"""2 layers of keys and values of 2 heads of width 8."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tiny_causal_lm(tmp_path_factory.mktemp("model") / "tiny", "llama")
    # No prompt makes a random model say the end marker it comes with.
    edit(directory, "generation_config.json", lambda config: config.update(eos_token_id=300))
    return directory


@pytest.fixture(autouse=True)
def _decoded_in_this_process(in_this_process):
    """`test_witness_prefix` starts a process of its own."""


def run(tiny, folder, request=REQUEST):
    model = loaded(tiny)
    return measured(model, random_pairs(model.codec, count=6, seed=0), request, folder)


def test_both_kinds_stand_in_one_record_and_a_second_run_trains_nothing(tiny, tmp_path):
    record, _ = run(tiny, tmp_path)
    soft, prefix = read_record(record).brackets
    assert [(row.kind, row.prompt_tokens, row.stored_bits) for row in (soft, prefix)] == [
        ("soft", 2, 32 * 2 * 32),
        ("prefix", 2, 32 * 2 * WIDTH),
    ]
    assert prefix.floor.pairs > 0
    for bracket in record["brackets"]:
        ceiling = bracket["ceiling"]
        assert ceiling["pairs"] >= bracket["floor"]["pairs"]
        check_certificate(json.loads((tmp_path / ceiling["certificate"]).read_text()))
        floor = bracket["floor"]
        assert floor["bits_per_stored_bit"] == floor["bits"] / bracket["stored_bits"]
    witness = read_witness(tmp_path / "witness-prefix-2-tokens")
    assert (witness.kind, witness.width, witness.prompt_tokens) == ("prefix", WIDTH, 2)
    control = record["brackets"][1]["control"]
    # Only a failure asks for an explanation.
    assert (control is None) == (prefix.floor.pairs == 6)
    again, notes = run(tiny, tmp_path)
    assert again == record
    assert notes.steps == []


@pytest.mark.parametrize(
    ("max_steps", "seconds", "status"),
    [(1, math.inf, "measured"), (60, 1e-3, "not run")],
)
def test_a_prefix_that_failed_has_a_control_and_one_without_time_says_so(
    tiny, tmp_path, max_steps, seconds, status
):
    training = replace(TRAINING, max_steps=max_steps)
    request = replace(
        REQUEST,
        kinds=(PromptKind.PREFIX,),
        search=replace(REQUEST.search, training=training),
        budget_seconds=seconds,
    )
    record, _ = run(tiny, tmp_path, request)
    control = record["brackets"][0]["control"]
    assert control["status"] == status
    read_record(record)


def test_a_kind_is_part_of_the_run(tiny, tmp_path):
    """The runs of one kind are not taken for those of the other, but found again by their own."""
    only = replace(REQUEST, kinds=(PromptKind.PREFIX,), control=False)
    first, notes = run(tiny, tmp_path, only)
    assert notes.steps
    both, notes = run(tiny, tmp_path, replace(REQUEST, control=False))
    assert [bracket["kind"] for bracket in both["brackets"]] == ["soft", "prefix"]
    assert notes.steps, "the soft prompt is trained"
    assert both["brackets"][1]["search"] == first["brackets"][0]["search"]
    assert [bracket.kind for bracket in read_record(both).brackets] == ["soft", "prefix"]


def test_a_model_without_prefixes_is_refused_before_anything_is_done(tiny, tmp_path, monkeypatch):
    def refuse(_model):
        raise UserError("prompts of the kind prefix", "be possible", got="none", remedy="soft")

    monkeypatch.setattr(HuggingFaceCausalLM, "prefix_shape", property(refuse))
    with pytest.raises(UserError, match="kind prefix"):
        run(tiny, tmp_path)
    assert not (tmp_path / "bracket.json").exists()


def test_the_ceiling_of_a_prefix_counts_its_numbers(tiny):
    model = loaded(tiny)
    task = random_pairs(model.codec, count=6, seed=0)
    size = PromptSize(PromptKind.PREFIX, 3)
    prefix = task_ceiling(model.card, task, size=size, width=WIDTH)
    soft = task_ceiling(model.card, task, size=PromptSize(PromptKind.SOFT, 6))
    assert prefix.stored_bits == soft.stored_bits == 32 * 3 * WIDTH
    assert prefix.pairs == soft.pairs
    assert prefix.certificate_name == "ceiling-prefix-3-tokens.json"
    assert (prefix.counting.dim, prefix.counting.prompt_tokens) == (WIDTH, 3)
    assert "prompt of 3 tokens" in check_certificate(json.loads(prefix.certificate))
    half = task_ceiling(
        replace(model.card, compute_dtype="bfloat16"),
        task,
        size=size,
        width=WIDTH,
    )
    bits = [one.stated.prompt_bits for one in (half, prefix)]
    assert bits[0] < 16 * 3 * WIDTH < bits[1] < 32 * 3 * WIDTH
