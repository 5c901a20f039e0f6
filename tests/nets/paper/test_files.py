"""The papers' transformer on disk."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from promptlimits.base.errors import UserError
from promptlimits.nets.paper.files import load_transformer, save_transformer
from promptlimits.nets.paper.layers import PaperHead, PaperLayer, PaperNorm
from promptlimits.nets.paper.transformer import PaperTransformer


def transformer(dtype=torch.float64):
    draws = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=draws, dtype=dtype)

    def layer(hidden):
        heads = tuple(
            PaperHead(query=draw(2, 3), key=draw(2, 3), value=draw(1, 3), output=draw(3, 1))
            for _ in range(2)
        )
        return PaperLayer(
            heads=heads,
            w1=draw(hidden, 3),
            b1=draw(hidden),
            w2=draw(3, hidden),
            b2=draw(3),
            attention_norm=PaperNorm(kind="rms", weight=draw(3), bias=None, epsilon=1e-6),
            mlp_norm=PaperNorm(kind="layer", weight=draw(3), bias=draw(3), epsilon=1e-5),
            activation="gelu" if hidden else "relu",
        )

    return PaperTransformer(
        layers=(layer(4), layer(0)), masked=True, norm_place="pre", positions=draw(3, 6)
    )


@pytest.fixture
def saved(tmp_path):
    save_transformer(transformer(), tmp_path / "model")
    return tmp_path / "model"


def config_with(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | changes), encoding="utf-8")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_loaded_is_what_was_saved(tmp_path, dtype):
    model = transformer(dtype)
    save_transformer(model, tmp_path)
    loaded = load_transformer(tmp_path)
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    assert torch.equal(loaded(x), model(x))
    assert loaded.layers[0].mlp_norm is not None
    assert loaded.layers[0].mlp_norm.epsilon == 1e-5
    assert loaded.layers[1].w1.shape == (0, 3)
    assert [layer.activation for layer in loaded.layers] == ["gelu", "relu"]


def test_a_model_without_extras_is_saved_too(tmp_path):
    full = transformer()
    layers = tuple(replace(layer, attention_norm=None, mlp_norm=None) for layer in full.layers)
    save_transformer(PaperTransformer(layers=layers), tmp_path)
    loaded = load_transformer(tmp_path)
    assert (loaded.masked, loaded.norm_place, loaded.positions) == (False, None, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "model_type 'promptlimits-transformer'"),
        ({"format": 2}, "format 1"),
        ({"dim": 4}, "state dim 3"),
        ({"dim": "3"}, "right kind"),
        ({"masked": 1}, "right kind"),
        ({"norm_place": "beside"}, "right kind"),
        ({"norm_place": None}, "norm_place"),
        ({"dtype": "float32"}, "float32"),
        ({"dtype": "float16"}, "right kind"),
        ({"positions": False}, "unknown positions"),
        ({"layers": [{}]}, "right kind"),
        ({"surprise": 1}, "known keys alone.*surprise"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(saved, changes, words):
    config_with(saved, **changes)
    with pytest.raises(UserError, match=words):
        load_transformer(saved)


def test_weights_that_are_wrong_are_refused(saved):
    path = saved / "model.safetensors"
    whole = load_file(path)

    def with_tensors(tensors, words):
        save_file(tensors, path)
        with pytest.raises(UserError, match=words):
            load_transformer(saved)

    with_tensors({k: v for k, v in whole.items() if k != "layers.0.w1"}, r"missing layers\.0\.w1")
    with_tensors(whole | {"layers.9.w1": torch.zeros(1)}, r"unknown layers\.9\.w1")
    with_tensors(whole | {"layers.0.b2": torch.full((3,), float("nan")).double()}, "finite")
    with_tensors(whole | {"layers.0.b1": torch.zeros(5).double()}, "shape")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="whole safetensors"):
        load_transformer(saved)
    torch.save(whole, path)
    with pytest.raises(UserError, match="never read"):
        load_transformer(saved)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        load_transformer(saved)


def test_half_precision_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="float32 or float64"):
        save_transformer(transformer().to(torch.bfloat16), tmp_path)
