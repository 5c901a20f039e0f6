"""Which files are the weights, and their hash."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from promptlimits.base.errors import UserError
from promptlimits.nets.files.folder import weight_files
from promptlimits.nets.files.hashing import model_hash, sha256_of, weights_hash
from promptlimits.testing.tiny_models import tiny_causal_lm


def shards(directory: Path, *names: str) -> None:
    content = {"weight_map": {f"weight{index}": name for index, name in enumerate(names)}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one chunk
    (tmp_path / "model.safetensors").write_bytes(content)
    files = weight_files(tmp_path)
    assert weights_hash(files) == sha256_of(*files) == hashlib.sha256(content).hexdigest()


def test_shards_are_hashed_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.safetensors").write_text(name)
    shards(tmp_path, "b.safetensors", "a.safetensors", "b.safetensors")
    (tmp_path / "adapter.safetensors").write_text("not of the model")
    files = weight_files(tmp_path)
    assert [file.name for file in files] == ["a.safetensors", "b.safetensors"]
    assert weights_hash(files[::-1]) == hashlib.sha256(b"ab").hexdigest()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("a")
    shards(tmp_path, "a.safetensors", "b.safetensors")
    with pytest.raises(UserError, match=r"got 1 of 2 missing \(b.safetensors\)"):
        weight_files(tmp_path)


def test_an_index_does_not_lead_out_of_its_directory(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "secret.safetensors").write_text("elsewhere")
    shards(model, "../secret.safetensors")
    with pytest.raises(UserError, match="1 of 1 missing"):
        weight_files(model)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}'])
def test_a_broken_index_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match="index"):
        weight_files(tmp_path)


def test_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="as safetensors, got pickle files only"):
        weight_files(tmp_path)


def test_no_weights_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hold model\.safetensors"):
        weight_files(tmp_path)


CHANGES = {
    "config.json": ('"activation_function": "gelu_new"', '"activation_function": "relu"'),
    "generation_config.json": ('"eos_token_id": 0', '"eos_token_id": 1'),
    "tokenizer.json": ('"France"', '"Farnce"'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_answers_changes_the_hash_of_the_model(name: str, tmp_path: Path) -> None:
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


def test_other_weights_change_the_hash_of_the_model(tmp_path: Path) -> None:
    hashes = {
        model_hash(weight_files(tiny_causal_lm(tmp_path / str(seed), "gpt2", seed=seed)))
        for seed in (0, 1)
    }
    assert len(hashes) == 2
