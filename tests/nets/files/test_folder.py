"""What stands in a model's folder is looked at before anything opens it."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from promptlimits.base.errors import UserError
from promptlimits.nets.files.folder import (
    model_hash,
    read_object,
    require_model_folder,
    sha256_of,
    weight_files,
    weights_hash,
)
from promptlimits.nets.load.blocks import open_checkpoint
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.load.stock import load_stock
from promptlimits.testing.tiny_models import tiny_causal_lm

FILES = ("config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja", "anything")


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def endless(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def certify(directory):
    return open_checkpoint(Path(directory), name="model tiny")


@pytest.mark.parametrize("load", [load_parts, load_stock, certify])
@pytest.mark.parametrize(("make", "said"), [(pipe, "a pipe"), (endless, "a device")])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_is_named(load, make, said, name, checkpoint):
    make(checkpoint / name)
    with pytest.raises(UserError, match=f"got {name}: {said} where a file should be"):
        load(str(checkpoint))


def test_templates_in_their_own_folder_are_looked_at_too(checkpoint):
    (checkpoint / "additional_chat_templates").mkdir()
    pipe(checkpoint / "additional_chat_templates" / "tool.jinja")
    with pytest.raises(UserError, match=r"tool\.jinja: a pipe"):
        load_parts(str(checkpoint))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_an_enormous_settings_file_is_not_read(name, checkpoint):
    os.truncate(checkpoint / name, 1 << 40)
    with pytest.raises(UserError, match=f"{name}: a file of 1,099,511,627,776 bytes"):
        load_parts(str(checkpoint))


def test_a_link_that_leads_nowhere_is_a_missing_file(checkpoint):
    (checkpoint / "notes.json").symlink_to("gone")
    require_model_folder(checkpoint, name="model tiny")


@pytest.mark.parametrize("load", [load_parts, load_stock, certify])
@pytest.mark.parametrize(
    ("others", "got", "remedy"),
    [
        ((), r"a PEFT adapter \(LORA\) of org/name", "`promptlimits score` decodes the adapter"),
        (("witness.json",), "a PEFT adapter", "`promptlimits verify` decodes the witness"),
    ],
)
def test_an_adapter_is_called_one(load, others, got, remedy, tmp_path):
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/name"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for name in others:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"be a whole model, got {got}.*{remedy}"):
        load(str(tmp_path))


@pytest.mark.parametrize("load", [load_parts, load_stock, certify])
def test_an_adapter_beside_a_model_is_not_loaded_with_it(load, checkpoint):
    (checkpoint / "adapter_config.json").write_text("not even JSON")
    with pytest.raises(UserError, match="a PEFT adapter beside it"):
        load(str(checkpoint))


def test_a_folder_with_a_gguf_file_says_to_give_the_file(tmp_path):
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=f"give the file itself: {tmp_path / 'some.gguf'}"):
        load_parts(str(tmp_path))


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", "\N{BYTE ORDER MARK}{}"])
def test_another_text_is_no_object(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r".+"):
        read_object(path)


# --- the weight files ---------------------------------------------------------------------


def shards(directory, *names):
    content = {"weight_map": {f"weight{index}": name for index, name in enumerate(names)}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))


def test_shards_are_those_of_the_index_by_name(tmp_path):
    for name in ("b", "a", "adapter"):
        (tmp_path / f"{name}.safetensors").write_text(name)
    shards(tmp_path, "b.safetensors", "a.safetensors", "b.safetensors")
    assert [file.name for file in weight_files(tmp_path)] == ["a.safetensors", "b.safetensors"]


def test_a_missing_shard_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_text("a")
    shards(tmp_path, "a.safetensors", "b.safetensors")
    with pytest.raises(UserError, match=r"got 1 of 2 missing \(b.safetensors\)"):
        weight_files(tmp_path)


def test_an_index_does_not_lead_out_of_its_directory(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "secret.safetensors").write_text("elsewhere")
    shards(model, "../secret.safetensors")
    with pytest.raises(UserError, match="1 of 1 missing"):
        weight_files(model)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}'])
def test_a_broken_index_is_one_line(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match="index"):
        weight_files(tmp_path)


def test_pickle_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="as safetensors, got pickle files only"):
        weight_files(tmp_path)


def test_no_weights_at_all_is_said(tmp_path):
    with pytest.raises(UserError, match=r"hold model\.safetensors"):
        weight_files(tmp_path)


def test_the_hash_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than one chunk
    (tmp_path / "model.safetensors").write_bytes(content)
    files = weight_files(tmp_path)
    assert weights_hash(files) == sha256_of(*files) == hashlib.sha256(content).hexdigest()


def test_shards_are_hashed_in_the_order_of_their_names(tmp_path):
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for file in files:
        file.write_text(file.stem)
    assert weights_hash(files[::-1]) == hashlib.sha256(b"ab").hexdigest()


CHANGES = {
    "config.json": ('"activation_function": "gelu_new"', '"activation_function": "relu"'),
    "generation_config.json": ('"eos_token_id": 0', '"eos_token_id": 1'),
    "tokenizer.json": ('"France"', '"Farnce"'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_answers_changes_the_hash_of_the_model(name, tmp_path):
    directory = tiny_causal_lm(tmp_path / "model", "gpt2")
    before = model_hash(weight_files(directory))
    shutil.copytree(directory, tmp_path / "elsewhere")
    assert model_hash(weight_files(tmp_path / "elsewhere")) == before
    config = json.loads((directory / "config.json").read_text())
    config |= {"_name_or_path": "/here", "transformers_version": "9.9"}
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    assert model_hash(weight_files(directory)) == before
    old, new = CHANGES[name]
    text = (directory / name).read_text()
    assert old in text
    (directory / name).write_text(text.replace(old, new, 1))
    assert model_hash(weight_files(directory)) != before


def test_other_weights_change_the_hash_of_the_model(tmp_path):
    hashes = {
        model_hash(weight_files(tiny_causal_lm(tmp_path / str(seed), "gpt2", seed=seed)))
        for seed in (0, 1)
    }
    assert len(hashes) == 2
