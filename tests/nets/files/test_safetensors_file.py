"""Safetensors come back as they are stored; what is broken is refused in one line."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from promptlimits.base.errors import UserError
from promptlimits.nets.files.safetensors_file import WeightReader


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_format_is_read_exactly(dtype, tmp_path):
    stored = torch.tensor([[1.5, -3.25e-3, 0.0], [6e4, 1e-7, -1.0]], dtype=dtype)
    save_file({"a": stored, "b": torch.arange(3)}, tmp_path / "model.safetensors")
    got = WeightReader(tmp_path, name="m").read("a", shape=(2, 3))
    assert got.dtype == np.float64
    assert (got == stored.to(torch.float64).numpy()).all()


def test_shards_are_read_as_one(tmp_path):
    parts = {"a.safetensors": ["x", "z"], "b.safetensors": ["y"]}
    for file, keys in parts.items():
        save_file({key: torch.full((2,), float(ord(key))) for key in keys}, tmp_path / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    reader = WeightReader(tmp_path, name="m")
    assert reader.keys == {"x", "y", "z"}
    assert [reader.read(key, shape=(2,))[1] for key in "xyz"] == [ord(key) for key in "xyz"]


def entry(low, high, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [low, high]}


def header(**entries):
    return json.dumps(entries)


NO_HEADER = "no safetensors header"
HEADERS = {
    "more numbers than bytes": (header(a=entry(0, 8, [3])), "bytes than its shape"),
    "overlapping": (header(a=entry(0, 4, [1]), b=entry(0, 8, [2])), "not right behind"),
    "a gap in front": (header(a=entry(4, 8, [1])), "not right behind"),
    "bytes behind": (header(a=entry(0, 4, [1])), "4 bytes behind the last tensor"),
    "past the end": (header(a=entry(0, 16, [4])), "cut off before the end of a"),
    "a negative size": (header(a=entry(0, 8, [-2])), NO_HEADER),
    "a size that is a float": (header(a=entry(0, 8, [2.0])), NO_HEADER),
    "a size that is text": (header(a=entry(0, 8, ["2"])), NO_HEADER),
    "an infinite size": (
        '{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 8]}}',
        NO_HEADER,
    ),
    "a name twice": (
        f'{{"a": {json.dumps(entry(0, 4, [1]))}, "a": {json.dumps(entry(0, 8, [2]))}}}',
        NO_HEADER,
    ),
    "no fields": ('{"a": 1}', NO_HEADER),
    "a list": ("[]", NO_HEADER),
    "too deep": ("[" * 200_000, NO_HEADER),
    "half an object": ("{", NO_HEADER),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_do_not_describe_their_file(case, tmp_path):
    text, match = HEADERS[case]
    raw = text.encode()
    (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(UserError, match=match) as caught:
        WeightReader(tmp_path, name="m")
    assert "\n" not in str(caught.value)


CUTS = [
    lambda whole: whole[:-1],
    lambda whole: whole + b"\0",
    lambda whole: whole[:100],
    lambda whole: whole[:7],
    lambda whole: b"\xff" * 12,
    lambda whole: b"",
]


@pytest.mark.parametrize("cut", CUTS)
def test_files_that_are_cut_off(cut, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(40), "b": torch.ones(3)}, path)
    whole = path.read_bytes()
    assert WeightReader(tmp_path, name="m").keys == {"a", "b"}
    path.write_bytes(cut(whole))
    with pytest.raises(UserError, match="truncated or corrupted"):
        WeightReader(tmp_path, name="m")
