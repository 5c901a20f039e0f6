"""Layers and pairs from files: what is refused before any command computes."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from promptlimits.base.errors import UserError
from promptlimits.cli.lab.weights_options import Layer, read_pairs


def saved(here, **change):
    parts = {part: np.eye(2) for part in ("query", "key", "value", "output")} | change
    tensors = {f"heads.0.{part}": array for part, array in parts.items()}
    tensors |= {
        "w1": np.zeros((0, 2)),
        "b1": np.zeros(0),
        "w2": np.zeros((2, 0)),
        "b2": np.zeros(2),
    }
    save_file(tensors, here / "layer.safetensors")
    return here / "layer.safetensors"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"query": np.zeros((0, 2)), "key": np.zeros((0, 2))},
            "queries and keys of size 1 or more",
        ),
        ({"value": np.zeros((0, 2)), "output": np.zeros((2, 0))}, "values of size 1 or more"),
        ({"value": np.full((2, 2), 1e200)}, "W_o W_v of head 0 must be at most 1e100 in size"),
        ({"query": np.full((2, 2), 1e60), "key": np.full((2, 2), 1e60)}, "product W_k"),
    ],
)
def test_a_layer_of_no_use_is_refused(tmp_path, change, words):
    assert Layer(weights=saved(tmp_path)).read().dim == 2
    with pytest.raises(UserError, match=words):
        Layer(weights=saved(tmp_path, **change)).read()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"queries": [[[1, 2]]], "queries": [[[3, 4]]], "answers": [[1, 1]]}',
            "'?queries'? is given twice",
        ),
        (
            '{"queries": [[[1, 2]]], "answers": [[1, 1]], "kind": {"a": 1, "a": 2}}',
            "a'? is given twice",
        ),
        ('{"queries": [[["1", 2]]], "answers": [[1, 1]]}', "lists of numbers"),
        ('{"queries": [[[1, 2]]], "answers": [[1e308, 1]]}', "at most 1e100"),
        ('{"queries": [[[1, 2]]], "answers": [[1e999, 1]]}', "finite"),
    ],
)
def test_pairs_that_may_mean_something_else_are_refused(tmp_path, text, words):
    (tmp_path / "pairs.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_pairs(tmp_path / "pairs.json", 2)


def test_a_layer_of_width_0_is_refused(tmp_path):
    parts = ("query", "key", "value", "output")
    tensors = {f"heads.0.{part}": np.zeros((0, 0)) for part in parts}
    tensors["heads.0.query"] = tensors["heads.0.key"] = np.zeros((2, 0))
    tensors |= {
        "w1": np.zeros((0, 0)),
        "b1": np.zeros(0),
        "w2": np.zeros((0, 0)),
        "b2": np.zeros(0),
    }
    save_file(tensors, tmp_path / "layer.safetensors")
    with pytest.raises(UserError, match="width d must be at least 1"):
        Layer(weights=tmp_path / "layer.safetensors").read()
