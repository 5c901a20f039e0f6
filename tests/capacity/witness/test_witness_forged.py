"""Whoever makes a witness writes down every hash in it: none of these forgeries may pass.

Each test does what a dishonest maker would do, hashes made right again, and shows that what
is claimed is not confirmed.
"""

import dataclasses
import hashlib
import json
import runpy
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.capacity.witness.witness_cases import answering, edit

from promptlimits.base.errors import UserError
from promptlimits.capacity.store.provenance import canonical_json
from promptlimits.capacity.witness.format import (
    read_prompt,
    read_witness,
    write_verification,
)
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.load.network import quiet

ADAPTER = "adapter_model.safetensors"
NORM = "base_model.model.norm.weight"


def sign(directory):
    """Make the hashes right again, as the maker of a forgery would."""
    adapter = (directory / ADAPTER).read_bytes()

    def change(document):
        pairs = canonical_json(document["pairs"]).encode()
        document["pairs_sha256"] = hashlib.sha256(pairs).hexdigest()
        document["adapter_sha256"] = hashlib.sha256(adapter).hexdigest()

    edit(directory, "witness.json", change)
    return directory


def smuggle(directory):
    """Put weights of the model itself into the adapter file."""
    tensors = load_file(directory / ADAPTER)
    save_file({**tensors, NORM: torch.zeros(32)}, directory / ADAPTER)
    return directory


@pytest.fixture
def replay(monkeypatch, capsys):
    """Run the replay.py of a witness in this process: exit code, output, errors."""

    def run(directory, *options):
        monkeypatch.setattr("sys.argv", ["replay.py", *map(str, options)])
        with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
            runpy.run_path(str(directory / "replay.py"), run_name="__main__")
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


# --- weights beside the prompt ------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
def test_weights_of_the_model_beside_the_prompt_are_refused(each_kind, tmp_path, signed):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    witness = smuggle(each_kind.save(tmp_path / "w"))
    if signed:
        sign(witness)
    with quiet():
        network = AutoModelForCausalLM.from_pretrained(each_kind.model)
        loaded = PeftModel.from_pretrained(network, witness)
    assert not loaded.base_model.model.norm.weight.any(), "PEFT took the weights for its own"
    with pytest.raises(UserError, match=rf"and no other tensor, got .*{NORM} \(32,\)"):
        each_kind.verify(witness)


def test_replay_refuses_them_too(case, witness, replay):
    code, out, err = replay(sign(smuggle(witness)), "--model", case.model)
    assert (code, out) == (2, "")
    assert err.startswith("more than a prompt: the adapter holds [")


def test_every_byte_of_the_adapter_is_vouched_for(case, witness):
    save_file(load_file(witness / ADAPTER), witness / ADAPTER, metadata={"note": "other"})
    with pytest.raises(UserError, match="got altered file"):
        case.verify(witness)
    assert case.verify(sign(witness)).pairs_exact == len(case.pairs)


@pytest.mark.parametrize(
    "change", [lambda it: it.pop("adapter_sha256"), lambda it: it.update(adapter_sha256="f" * 63)]
)
def test_a_witness_without_a_hash_of_its_adapter_is_refused(witness, change):
    edit(witness, "witness.json", change)
    with pytest.raises(UserError, match=r"cannot be read \(adapter_sha256"):
        read_witness(witness)


@pytest.mark.parametrize(
    "change",
    [
        {"modules_to_save": ["norm"]},
        {"modules_to_save": None},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
        {"revision": "main"},
        {"tokenizer_name_or_path": "someone/else"},
        {"tokenizer_kwargs": {"trust_remote_code": True}},
        {"prompt_tuning_init": "TEXT"},
        {"peft_type": "LORA"},
        {"task_type": "SEQ_CLS"},
        {"num_transformer_submodules": 2},
        {"num_transformer_submodules": True},
        {"inference_mode": 1},
        {"base_model_name_or_path": "someone/else"},
    ],
    ids=str,
)
def test_a_configuration_that_says_more_is_refused(witness, change):
    edit(witness, "adapter_config.json", lambda config: config.update(change))
    with pytest.raises(UserError, match=rf"and no more, got .*{next(iter(change))}.* instead"):
        read_prompt(witness, read_witness(witness))


def test_a_configuration_that_says_less_is_refused(witness):
    edit(witness, "adapter_config.json", lambda config: config.pop("inference_mode"))
    with pytest.raises(UserError, match="got no inference_mode"):
        read_prompt(witness, read_witness(witness))


# --- pairs that claim more than was shown -------------------------------------------------


def test_one_pair_500_times_is_not_500_pairs(case, witness, replay):
    with pytest.raises(UserError, match=r"pairs must have keys that all differ .* twice"):
        case.save(witness, pairs=case.pairs[:1] * 500)
    edit(witness, "witness.json", lambda it: it.update(pairs=it["pairs"][:1] * 500))
    with pytest.raises(UserError, match=r"witness\.json must have keys that all differ .* twice"):
        case.verify(sign(witness))
    assert replay(witness, "--model", case.model) == (2, "", "a pair is listed twice\n")


def test_one_key_with_two_answers_is_refused(case, witness):
    first, second, *_ = case.pairs
    other = dataclasses.replace(first, value=second.value, value_ids=second.value_ids)
    with pytest.raises(UserError, match="differ as tokens"):
        case.save(witness, pairs=(first, other))


@pytest.mark.parametrize("keys_as", ["text", "ids"])
def test_what_comes_first_is_not_taken_for_an_end_marker(case, witness, replay, keys_as):
    """The model says something; that is called the end marker, and the value whatever one likes."""
    pairs = [
        dataclasses.replace(pair, value="Madrid", value_ids=pair.value_ids[:1])
        for pair in case.pairs
    ]
    found = case.verify(case.save(witness, pairs=pairs, keys_as=keys_as))
    assert found.pairs_exact == 0
    assert {answer.fault for answer in found.answers} == {
        "the recorded value does not end in an end marker of the model"
    }
    code, out, _err = replay(witness, "--model", case.model)
    assert code == 1
    assert f"0 of {len(pairs)} pairs exact" in out


@pytest.mark.parametrize("keys_as", ["text", "ids"])
def test_a_value_that_its_tokens_do_not_say_is_not_exact(case, witness, replay, keys_as):
    first, *rest = case.pairs
    pairs = (dataclasses.replace(first, value="Madrid"), *rest)
    found = case.verify(case.save(witness, pairs=pairs, keys_as=keys_as))
    assert [answer.exact for answer in found.answers] == [False] + [True] * len(rest)
    assert found.answers[0].fault == "the recorded value is not what its tokens say"
    assert found.answers[0].generated_ids == first.value_ids
    code, out, _err = replay(witness, "--model", case.model)
    assert (code, out.splitlines()[1].split()[0]) == (1, "WRONG")
    assert f"{len(rest)} of {len(pairs)} pairs exact" in out


def test_an_end_marker_inside_a_value_is_a_fault_of_the_pair(case, witness):
    first, *rest = case.pairs
    doubled = answering(case, first, (*first.value_ids, first.value_ids[-1]))
    found = case.verify(case.save(witness, pairs=(doubled, *rest)))
    assert [answer.exact for answer in found.answers] == [False] + [True] * len(rest)
    assert found.answers[0].fault == "the recorded value has an end marker of the model inside"


def test_an_answer_that_is_cut_off_where_a_recorded_one_ends_is_not_exact(case, witness):
    """All answers are as long as the longest may be, so decoding stops there by itself."""
    pair = answering(case, case.pairs[0], case.pairs[0].value_ids[:2])
    (answer,) = case.verify(case.save(witness, pairs=(pair,))).answers
    assert answer.generated_ids == pair.value_ids
    assert not answer.exact


@pytest.mark.parametrize("field", ["key_ids", "value_ids"])
@pytest.mark.parametrize("token", [10_000, 2**31, 2**70])
def test_a_token_that_the_model_does_not_have_is_refused(case, witness, field, token):
    edit(witness, "witness.json", lambda it: it["pairs"][0].update({field: [token, 0]}))
    with pytest.raises(UserError, match=rf"the largest is {token}\)"):
        case.verify(sign(witness))


def test_a_token_below_0_is_refused(case, witness):
    edit(witness, "witness.json", lambda it: it["pairs"][0].update(key_ids=[-1]))
    with pytest.raises(UserError, match=r"pairs\.0\.key_ids\.0"):
        case.verify(sign(witness))


# --- beginnings of a text -----------------------------------------------------------------


def beginning(case, tokens):
    """The first tokens of the longest answer, without its end marker."""
    first = case.pairs[0]
    shorter = answering(case, first, (*first.value_ids[:tokens], 0))
    return dataclasses.replace(shorter, value_ids=shorter.value_ids[:-1])


@pytest.mark.parametrize("kind", ["soft", "prefix"])
def test_a_beginning_is_as_many_tokens_as_recorded(cases, kind, witness, replay):
    case = cases("llama", kind)
    for tokens in range(1, len(case.pairs[0].value_ids)):
        pair = beginning(case, tokens)
        (answer,) = case.verify(case.save(witness, pairs=(pair,), beginning=True)).answers
        assert (answer.exact, answer.generated_ids) == (True, pair.value_ids)
        code, out, _err = replay(witness, "--model", case.model)
        assert code == 0
        assert f"the first {tokens} tokens of the text exact" in out


def test_a_longer_beginning_than_is_written_is_not_exact(case, witness, replay):
    written = case.pairs[0].value_ids[:-1]
    for last in (0, written[-1]):
        forged = dataclasses.replace(beginning(case, len(written)), value_ids=(*written, last))
        forged = dataclasses.replace(
            forged, value=answering(case, forged, (*written, last, 0)).value
        )
        (answer,) = case.verify(case.save(witness, pairs=(forged,), beginning=True)).answers
        assert (answer.exact, answer.fault) == (False, "another answer")
        code, out, _err = replay(witness, "--model", case.model)
        assert code == 1
        assert f"the first {len(written) + 1} tokens of the text not written" in out


def test_a_witness_lengthened_by_hand_is_not_exact(case, witness):
    case.save(witness, pairs=(beginning(case, 1),), beginning=True)
    claimed = (*case.pairs[0].value_ids[:1], *case.pairs[0].value_ids[:1])
    longer = answering(case, case.pairs[0], (*claimed, 0))
    change = {"value": longer.value, "value_ids": list(claimed)}
    edit(witness, "witness.json", lambda it: it["pairs"][0].update(change))
    with pytest.raises(UserError, match="pairs"):
        case.verify(witness)
    (answer,) = case.verify(sign(witness)).answers
    assert not answer.exact


def test_an_end_marker_in_a_beginning_is_a_fault_of_the_pair(case, witness, replay):
    """A whole answer is not a beginning: it is confirmed as a whole, or not at all."""
    found = case.verify(case.save(witness, pairs=case.pairs[:1], beginning=True))
    assert found.answers[0].fault == "the recorded value has an end marker of the model inside"
    assert replay(witness, "--model", case.model)[0] == 1


def test_a_beginning_that_does_not_say_so_has_no_end_marker(case, witness, replay):
    case.save(witness, pairs=(beginning(case, 2),), beginning=True)
    edit(witness, "witness.json", lambda it: it.pop("beginning"))
    assert not case.verify(witness).answers[0].exact
    assert replay(witness, "--model", case.model)[0] == 1


def test_the_answers_of_a_list_are_no_beginnings(case, witness, replay):
    with pytest.raises(UserError, match="be one pair where its value is the beginning"):
        case.save(witness, pairs=case.pairs, beginning=True)
    edit(witness, "witness.json", lambda it: it.update(beginning=True))
    with pytest.raises(UserError, match="be one pair where its value is the beginning"):
        case.verify(sign(witness))
    code, _out, err = replay(witness, "--model", case.model)
    assert (code, err.strip()) == (2, "a list of pairs has no beginning")


# --- other answers that count ---------------------------------------------------------------


def test_a_pair_is_exact_by_another_accepted_answer(case, witness, replay):
    """The value is one that the model does not give, and longer or shorter than what it does."""
    first, second, *rest = case.pairs
    pairs = []
    for pair, other in ((first, second), (second, first)):
        value, ids = other.value, other.value_ids
        accepted = ((pair.value, pair.value_ids),)
        pairs.append(dataclasses.replace(pair, value=value, value_ids=ids, also=accepted))
    case.save(witness, pairs=[*pairs, *rest])
    found = case.verify(witness)
    assert found.pairs_exact == len(case.pairs)
    assert [answer.came for answer in found.answers] == [pair.value for pair in case.pairs]
    assert replay(witness, "--model", case.model)[0] == 0
    write_verification(witness, found)
    assert read_witness(witness).counted == (True,) * len(case.pairs)
    forged = {"came": "another"}
    edit(witness, "witness.json", lambda it: it["verification"]["answers"][0].update(forged))
    with pytest.raises(UserError, match="an answer that came is not one that counts"):
        read_witness(witness)


def test_an_accepted_answer_that_is_not_said_to_be_one_is_none(case, witness, replay):
    first, second, *rest = case.pairs
    value, ids = second.value, second.value_ids
    other = dataclasses.replace(first, value=value, value_ids=ids)
    case.save(witness, pairs=[other, *rest])
    assert [answer.exact for answer in case.verify(witness).answers] == [False] + [True] * len(rest)
    assert replay(witness, "--model", case.model)[0] == 1


# --- verifications that were never made ---------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.clear(),
        lambda it: it.pop("answers"),
        lambda it: it.pop("versions"),
        lambda it: it.update(answers=5),
        lambda it: it.update(answers=[]),
        lambda it: it["answers"].pop(),
        lambda it: it["answers"].append(it["answers"][0]),
        lambda it: it["answers"].reverse(),
        lambda it: it["answers"][0].pop("counted"),
        lambda it: it["answers"][0].pop("fault"),
        lambda it: it["answers"][0].update(counted=False),
        lambda it: it["answers"][0].update(counted=1),
        lambda it: it["answers"][0].update(value="Madrid"),
        lambda it: it["answers"][0].update(generated_ids=None),
        lambda it: it.update(pairs_exact=500, of=500),
        lambda it: it.update(prompt_sha256="0" * 64),
    ],
)
def test_a_damaged_verification_is_one_line(case, witness, change):
    edit(witness, "witness.json", lambda it: it.update(verification=case.verify(witness).to_json()))
    assert read_witness(witness).counted == (True,) * len(case.pairs)
    edit(witness, "witness.json", lambda it: change(it["verification"]))
    with pytest.raises(UserError, match=r"witness\.json must be as promptlimits wrote it"):
        read_witness(witness)


@pytest.mark.parametrize("verification", [5, [], "none", {}])
def test_a_verification_of_another_kind_is_one_line(witness, verification):
    edit(witness, "witness.json", lambda it: it.update(verification=verification))
    with pytest.raises(UserError, match=r"witness\.json must be as promptlimits wrote it"):
        read_witness(witness)


# --- replay.py ----------------------------------------------------------------------------


def test_replay_asks_the_hub_for_no_name_of_the_catalog(witness, replay):
    code, out, err = replay(witness)
    assert (code, out) == (2, "")
    assert err == "say where the model tiny is: --model PATH_OR_HUB_ID\n"


def test_replay_takes_a_hub_id_from_the_witness(case, witness, replay, monkeypatch):
    monkeypatch.chdir(witness.parent)
    card = dataclasses.replace(case.card, reference="org/model")
    case.save(witness, card=card)
    shutil.copytree(case.model, "org/model")
    code, out, _err = replay(witness)
    assert code == 0
    assert out.splitlines()[0] == "weights not checked; `promptlimits verify` does"
    assert (
        json.loads((witness / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "org/model"
    )
    assert verify_witness(witness, model_path="org/model").pairs_exact == len(case.pairs)
