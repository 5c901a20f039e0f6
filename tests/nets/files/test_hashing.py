"""What the hashes of files, of weights and of a model are over."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from promptlimits.nets.files.folder import model_hash, sha256_of, weight_files, weights_hash
from promptlimits.testing.tiny_models import tiny_causal_lm


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one chunk
    (tmp_path / "model.safetensors").write_bytes(content)
    files = weight_files(tmp_path)
    assert weights_hash(files) == sha256_of(*files) == hashlib.sha256(content).hexdigest()


def test_shards_are_hashed_in_the_order_of_their_names(tmp_path: Path) -> None:
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
