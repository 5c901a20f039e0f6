"""Weights as they are stored come back exactly; what is broken is refused in one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from promptlimits.errors import UserError
from promptlimits.models.weights.checkpoint import open_checkpoint
from promptlimits.models.weights.reader import WeightReader
from promptlimits.testing.tiny_models import tiny_causal_lm, tiny_encoder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_causal_lm(tmp_path_factory.mktemp("tiny"), "gpt2", dim=16, layers=2, heads=2)


@pytest.fixture
def model(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


def all_blocks(directory):
    return list(open_checkpoint(directory, name="model tiny").blocks)


def edit_tensors(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_format_is_read_exactly(dtype, tmp_path):
    stored = torch.tensor([[1.5, -3.25e-3, 0.0], [6e4, 1e-7, -1.0]], dtype=dtype)
    save_file({"a": stored, "b": torch.arange(3)}, tmp_path / "model.safetensors")
    got = WeightReader(tmp_path, name="m").read("a", shape=(2, 3))
    assert got.dtype == np.float64
    assert (got == stored.to(torch.float64).numpy()).all()


def test_shards_are_read_as_one(model):
    whole = all_blocks(model)
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, model / file, metadata={"format": "pt"})
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model.safetensors").unlink()
    for one, other in zip(whole, all_blocks(model), strict=True):
        assert (one.attention.query == other.attention.query).all()
        assert (one.feed_forward.down == other.feed_forward.down).all()


def cut(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def nan(tensors):
    tensors["transformer.h.1.mlp.c_fc.weight"][0, 0] = torch.nan


def infinite(tensors):
    tensors["transformer.wte.weight"][-1, -1] = -torch.inf


def misshapen(tensors):
    tensors["transformer.h.0.ln_1.weight"] = torch.zeros(17)


BROKEN = {
    "cut off": (cut, ("truncated", "model.safetensors")),
    "header cut off": (
        lambda d: (d / "model.safetensors").write_bytes(b"\xff" * 12),
        ("truncated",),
    ),
    "header is no JSON": (
        lambda d: (d / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"[]"),
        ("truncated or corrupted",),
    ),
    "empty file": (lambda d: (d / "model.safetensors").write_bytes(b""), ("truncated",)),
    "pickle": (
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
        ("pickle",),
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), ("without weights",)),
    "NaN in a block": (
        lambda d: edit_tensors(d, nan),
        ("transformer.h.1.mlp.c_fc.weight", "NaN"),
    ),
    "infinite embedding": (
        lambda d: edit_tensors(d, infinite),
        ("transformer.wte.weight", "infinite"),
    ),
    "shape": (lambda d: edit_tensors(d, misshapen), ("transformer.h.0.ln_1.weight", "(17,)")),
    "missing tensor": (
        lambda d: edit_tensors(d, lambda t: t.pop("transformer.h.1.ln_2.bias")),
        ("transformer.h.1.ln_2.bias",),
    ),
    "unknown tensor": (
        lambda d: edit_tensors(d, lambda t: t.update(frob=torch.zeros(2))),
        ("unknown tensor frob",),
    ),
    "a block too many": (lambda d: edit_config(d, n_layer=1), ("unknown tensor", "h.1.")),
    "a block too few": (lambda d: edit_config(d, n_layer=3), ("h.2.",)),
    "unknown family": (lambda d: edit_config(d, model_type="frob"), ("'frob'", "llama")),
    "activation": (lambda d: edit_config(d, activation_function="mish"), ("'mish'",)),
    "eps": (lambda d: edit_config(d, layer_norm_epsilon=0), ("layer_norm_epsilon", "above 0")),
    "heads": (lambda d: edit_config(d, n_head=3), ("n_embd", "multiple of 3")),
    "cross attention": (lambda d: edit_config(d, add_cross_attention=True), ("add_cross",)),
    "no config": (lambda d: (d / "config.json").unlink(), ("config.json",)),
    "config is a list": (lambda d: (d / "config.json").write_text("[]"), ("config.json",)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_refused_in_one_line(case, model):
    change, words = BROKEN[case]
    change(model)
    with pytest.raises(UserError) as caught:
        all_blocks(model)
    said = str(caught.value)
    assert "\n" not in said
    assert all(word in said for word in words), said


def test_positions_that_do_more_than_turn_are_refused(tmp_path):
    directory = tiny_causal_lm(tmp_path, "llama", dim=16, heads=2, layers=1)
    edit_config(directory, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4})
    with pytest.raises(UserError, match="yarn"):
        all_blocks(directory)


def test_the_names_of_older_files_are_read(tmp_path):
    directory = tiny_encoder(tmp_path, dim=16, heads=2, layers=1)
    (before,) = all_blocks(directory)

    def rename(tensors):
        for key in list(tensors):
            if "LayerNorm" in key:
                older = key.replace(".weight", ".gamma").replace(".bias", ".beta")
                tensors["bert." + older] = tensors.pop(key)

    edit_tensors(directory, rename)
    (after,) = all_blocks(directory)
    assert (before.attention_norm.gain == after.attention_norm.gain).all()
    assert (before.feed_forward_norm.bias == after.feed_forward_norm.bias).all()
