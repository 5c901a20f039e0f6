"""A witness folder is whole, unaltered and belongs to its model, or it is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.capacity.witness.witness_cases import PROMPT_TOKENS, edit

from promptlimits.base.errors import UserError
from promptlimits.capacity.witness import fresh_process
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.testing.tiny_models import tiny_causal_lm

# --- what it refuses ----------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, -1])
def test_an_altered_digit_of_the_prompt_is_refused(each_kind, tmp_path, position):
    witness = each_kind.save(tmp_path / "w")
    tensors = load_file(witness / "adapter_model.safetensors")
    tensors["prompt_embeddings"].view(-1).view(torch.int32)[position] ^= 1
    save_file(tensors, witness / "adapter_model.safetensors")
    with pytest.raises(UserError, match="got altered prompt"):
        each_kind.verify(witness)


def test_an_altered_pair_is_refused(case, witness):
    edit(witness, "witness.json", lambda document: document["pairs"][0].update(value="Rome"))
    with pytest.raises(UserError, match="got altered pairs"):
        case.verify(witness)


def test_other_weights_are_refused_unless_allowed(case, witness, tmp_path):
    other = tiny_causal_lm(tmp_path / "other", "llama", seed=1)
    with pytest.raises(UserError, match=r"must have the weights of the witness .*--any-weights"):
        verify_witness(witness, model_path=str(other))
    found = verify_witness(witness, model_path=str(other), any_weights=True)
    assert not found.same_weights
    assert found.pairs_exact < found.of


def test_a_model_of_another_width_is_refused(witness, tmp_path):
    wide = tiny_causal_lm(tmp_path / "wide", "llama", dim=64)
    with pytest.raises(UserError, match="must have a width of 32, as the prompt has, got 64"):
        verify_witness(witness, model_path=str(wide), any_weights=True)


def test_a_model_that_reads_too_few_tokens_is_refused(case, tmp_path):
    longest = max(
        PROMPT_TOKENS + len(p.key_ids) + max(len(q.value_ids) for q in case.pairs)
        for p in case.pairs
    )
    directory = case.save(tmp_path / "w")
    for length, fits in ((longest, True), (longest - 1, False)):
        model = Path(shutil.copytree(case.model, tmp_path / f"model-{length}"))
        change = {"max_position_embeddings": length}
        edit(model, "config.json", lambda config, change=change: config.update(change))
        if fits:
            assert verify_witness(
                directory, model_path=str(model), any_weights=True
            ).pairs_exact == len(case.pairs)
        else:
            with pytest.raises(UserError, match=rf"must read {longest} tokens"):
                verify_witness(directory, model_path=str(model), any_weights=True)


def test_a_local_model_must_be_said_where_it_is(witness, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"hub id .*got 'tiny'; say where.*--model PATH"):
        verify_witness(witness)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="must be a witness folder, got nothing there"):
        verify_witness(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="must be a witness folder, got a file"):
        verify_witness(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("witness.json", None, "must hold witness.json"),
        ("witness.json", b"", "cannot be read"),
        ("witness.json", b'{"schema": 1, "model": {', "cannot be read"),
        ("witness.json", b"\xff\xfe\x00", "cannot be read"),
        ("witness.json", b"[]", "list where an object should be"),
        ("witness.json", b"{}", "schema: Field required"),
        ("witness.json", b'{"schema": 2}', "must have schema 1, got schema 2; upgrade"),
        ("witness.json", b'{"schema": 0}', "must have schema 1, got schema 0; run the command"),
        ("adapter_config.json", None, "must hold adapter_config.json"),
        ("adapter_config.json", b"{", "cannot be read"),
        ("adapter_config.json", b'{"peft_type": "LORA"}', 'got .*"peft_type":"LORA"'),
        ("adapter_model.safetensors", None, "No such file"),
        ("adapter_model.safetensors", b"", "cannot be read"),
        ("adapter_model.safetensors", b"\x10\0\0\0\0\0\0\0{", "cannot be read"),
    ],
)
def test_broken_files_are_named(case, witness, name, content, words):
    if content is None:
        (witness / name).unlink()
    else:
        (witness / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        case.verify(witness)
    assert "witness-3-tokens" in str(caught.value)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"prompt_embeddings": torch.zeros(PROMPT_TOKENS + 1, 32)},
        {"prompt_embeddings": torch.zeros(PROMPT_TOKENS, 32, dtype=torch.float64)},
        {"other": torch.zeros(PROMPT_TOKENS, 32)},
    ],
    ids=["none", "shape", "dtype", "name"],
)
def test_another_tensor_is_refused(case, witness, tensors):
    save_file(tensors, witness / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"hold prompt_embeddings of shape \(3, 32\) in float32"):
        case.verify(witness)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["pairs"].clear(),
        lambda document: document["pairs"][0].update(value_ids=[]),
        lambda document: document["pairs"][0].update(key_ids="12"),
        lambda document: document.update(prompt_tokens="3"),
        lambda document: document.update(prompt_sha256="0"),
        lambda document: document.update(keys_as="song"),
    ],
)
def test_fields_of_another_kind_are_refused(case, witness, change):
    edit(witness, "witness.json", change)
    with pytest.raises(UserError, match="must be as promptlimits wrote it"):
        case.verify(witness)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_prompt_that_is_not_finite_is_not_saved(case, tmp_path, bad):
    prompt = case.prompt.clone()
    prompt[1, 2] = bad
    with pytest.raises(UserError, match="must have finite numbers only, got 1 that are not"):
        case.save(tmp_path / "w", prompt=prompt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "prompt",
    [torch.zeros(0, 32), torch.zeros(32), torch.zeros(3, 31), torch.zeros(3, 32).double()],
    ids=["no token", "one axis", "width", "dtype"],
)
def test_a_prompt_of_another_form_is_not_saved(case, tmp_path, prompt):
    with pytest.raises(UserError, match="prompt must have shape"):
        case.save(tmp_path / "w", prompt=prompt)


def test_no_pairs_are_no_witness(case, tmp_path):
    with pytest.raises(UserError, match="pairs must not be empty"):
        case.save(tmp_path / "w", pairs=())


# --- the folder ---------------------------------------------------------------------------


def test_it_names_no_path_of_the_machine(case, witness):
    for path in witness.iterdir():
        assert str(case.model.parent).encode() not in path.read_bytes()
    config = json.loads((witness / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"


@pytest.mark.parametrize("reference", ["smollm2-135m", "org/model"])
def test_a_name_that_others_know_is_kept(case, tmp_path, reference):
    card = dataclasses.replace(case.card, reference=reference)
    directory = case.save(tmp_path / "w", card=card)
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == reference


def test_it_replaces_an_older_witness(case, tmp_path):
    directory = case.save(tmp_path / "w", pairs=case.pairs[:1])
    assert case.verify(directory).of == 1
    case.save(directory)
    assert case.verify(directory).of == len(case.pairs)
    assert list(tmp_path.iterdir()) == [directory]


def test_it_never_replaces_somebody_elses_folder(case, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(UserError, match="must be a new folder or an older witness"):
        case.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    case.save(tmp_path / "empty")


def test_a_replacement_cut_short_is_read_where_it_stands_and_undone_by_a_writer(case, witness):
    left = witness.rename(witness.with_name(f".{witness.name}.promptlimits-old"))
    found = case.verify(witness)
    assert found.pairs_exact == len(case.pairs)
    assert not witness.exists()
    fresh_process.write_verification(witness, found)
    assert json.loads((witness / "witness.json").read_text())["verification"] == found.to_json()
    assert not left.exists()


def test_a_verification_of_another_prompt_is_not_recorded(case, witness):
    found = case.verify(witness)
    case.save(witness, prompt=case.prompt + 1)
    with pytest.raises(UserError, match="altered prompt"):
        fresh_process.write_verification(witness, found)
    assert json.loads((witness / "witness.json").read_text())["verification"] is None


def test_saving_changes_nothing_of_the_callers(case, tmp_path):
    prompt = case.prompt.clone().requires_grad_()
    case.save(tmp_path / "w", prompt=prompt)
    assert torch.equal(prompt, case.prompt)
    saved = load_file(tmp_path / "w" / "adapter_model.safetensors")["prompt_embeddings"]
    assert torch.equal(saved, case.prompt), "bit for bit"
