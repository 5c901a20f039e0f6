"""Weights as they are stored come back exactly; what is broken is refused in one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from promptlimits.base.errors import UserError
from promptlimits.lipschitz.checkpoint.weights.checkpoint import open_checkpoint
from promptlimits.nets.files.safetensors_file import WeightReader
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


def header_of(directory):
    """The header, and the tensors' bytes."""
    data = (directory / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length].decode(), data[8 + length :]


def with_header(directory, header, data=b""):
    prefix = len(header).to_bytes(8, "little")
    (directory / "model.safetensors").write_bytes(prefix + header + data)


def edit_header(directory, before, after):
    header, data = header_of(directory)
    spaced = json.dumps(json.loads(header))
    assert before in spaced
    with_header(directory, spaced.replace(before, after, 1).encode(), data)


def name_twice(directory):
    """The same numbers under a name that is there already: of two, readers choose differently."""
    header, data = header_of(directory)
    entries = json.loads(header)
    added = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    first = next(key for key in entries if key != "__metadata__")
    twice = f'{{"{first}": {json.dumps(added)}, {json.dumps(entries)[1:]}'
    with_header(directory, twice.encode(), data + b"\0" * 4)


def leave_a_gap(directory):
    header, data = header_of(directory)
    entries = json.loads(header)
    for key, fields in entries.items():
        if key != "__metadata__":
            fields["data_offsets"] = [offset + 8 for offset in fields["data_offsets"]]
    with_header(directory, json.dumps(entries).encode(), b"\0" * 8 + data)


def append(directory, more):
    header, data = header_of(directory)
    with_header(directory, header.encode(), data + more)


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
    "quantised": (
        lambda d: edit_config(d, quantization_config={"quant_method": "gptq"}),
        ("quantization_config",),
    ),
    "code of its own": (
        lambda d: edit_config(d, auto_map={"AutoModel": "other.Model"}),
        ("auto_map",),
    ),
    "activations in a list": (
        lambda d: edit_config(d, activation_function=["gelu"]),
        ("activation_function", "['gelu']"),
    ),
    "eps beyond doubles": (
        lambda d: edit_config(d, layer_norm_epsilon=10**400),
        ("layer_norm_epsilon", "above 0"),
    ),
    "eps is text": (
        lambda d: edit_config(d, layer_norm_epsilon="1e-5"),
        ("layer_norm_epsilon", "'1e-5'"),
    ),
    "header nested too deep": (
        lambda d: with_header(d, b"[" * 200_000),
        ("no safetensors header",),
    ),
    "header of an infinite shape": (
        lambda d: edit_header(d, '"shape": [16]', '"shape": [1e400]'),
        ("no safetensors header",),
    ),
    "header of a broken shape": (
        lambda d: edit_header(d, '"shape": [16]', '"shape": [16.5]'),
        ("no safetensors header",),
    ),
    "a tensor named twice": (name_twice, ("no safetensors header",)),
    "bytes of no tensor": (leave_a_gap, ("not right behind",)),
    "bytes behind the last tensor": (
        lambda d: append(d, b"\0" * 8),
        ("8 bytes behind the last tensor",),
    ),
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


YARN = {"rope_type": "yarn", "factor": 4, "attention_factor": 200.0}
TURNING = {"rope_type": "default", "rope_theta": 1e4}
ROPES = {
    "the older key beside today's": ({"rope_parameters": TURNING, "rope_scaling": YARN}, "both"),
    "today's key beside the older": ({"rope_parameters": YARN, "rope_scaling": TURNING}, "both"),
    "the older key": ({"rope_parameters": None, "rope_scaling": YARN}, "yarn"),
    "the older name of the kind": (
        {"rope_parameters": {"type": "yarn", "factor": 4, "rope_theta": 1e4}},
        "yarn",
    ),
    "two kinds": ({"rope_parameters": TURNING | {"type": "yarn"}}, "yarn"),
    "for one type of layer": ({"rope_parameters": {"full_attention": YARN}}, "yarn"),
    "for another type of layer": (
        {"rope_parameters": None, "rope_scaling": {"sliding_attention": YARN}},
        "yarn",
    ),
    "kind in a list": ({"rope_parameters": {"rope_type": ["default"]}}, "rope_type"),
    "scaling is text": ({"rope_parameters": None, "rope_scaling": "linear"}, "rope_scaling"),
    "parameters are text": ({"rope_parameters": "linear"}, "rope_parameters"),
    "base is text": ({"rope_parameters": None, "rope_theta": "abc"}, "rope_theta"),
    "base beyond doubles": ({"rope_parameters": {"rope_theta": 10**400}}, "rope_theta"),
    "part is text": (
        {"rope_parameters": TURNING | {"partial_rotary_factor": "half"}},
        "partial_rotary_factor",
    ),
    "more than a head": (
        {"rope_parameters": TURNING | {"partial_rotary_factor": 2}},
        "partial_rotary_factor",
    ),
}


@pytest.mark.parametrize("case", ROPES)
def test_rotary_positions_that_cannot_be_trusted_to_turn_are_refused(case, tmp_path):
    """Stock code lets rope_scaling win over rope_parameters, whose kind alone was looked at."""
    directory = tiny_causal_lm(tmp_path, "llama", dim=16, heads=2, layers=1)
    settings, word = ROPES[case]
    edit_config(directory, **settings)
    with pytest.raises(UserError, match=word):
        all_blocks(directory)


def test_a_part_that_is_null_is_the_whole_head(tmp_path):
    directory = tiny_causal_lm(tmp_path, "llama", dim=16, heads=2, layers=1)
    edit_config(directory, rope_parameters=TURNING | {"partial_rotary_factor": None})
    (block,) = all_blocks(directory)
    assert block.attention.rotary.width == 8


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
