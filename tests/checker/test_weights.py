"""A checkpoint's ceiling is verified from its norms, and its norms from the weights."""

import copy
import json
import shutil
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from promptlimits import checker
from promptlimits.base.errors import RunFailed, UserError
from promptlimits.certificates import checked
from promptlimits.checker import matrices
from promptlimits.checker.weights import prove_norms
from promptlimits.lipschitz.checkpoint.model_ceiling import model_ceiling, read_facts
from promptlimits.nets.files.folder import weight_files, weights_hash
from promptlimits.nets.load.blocks import open_checkpoint
from promptlimits.testing.tiny_models import tiny_causal_lm, tiny_encoder

Record = dict[str, Any]
FAMILIES = ("bert", "gemma3", "gpt2", "gpt_neox", "llama", "qwen2")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One tiny model of each family."""
    made = {}
    for family in FAMILIES:
        made[family] = folder = tmp_path_factory.mktemp(family)
        if family == "bert":
            tiny_encoder(folder, dim=8, layers=2, heads=2)
        else:
            tiny_causal_lm(folder, family, dim=8, layers=2, heads=2, kv_heads=1)
    return made


def certificate(directory, **change):
    ceiling = model_ceiling(
        read_facts(open_checkpoint(directory, name="tiny")),
        weights_sha256=weights_hash(weight_files(directory)),
        **{
            "prompt_tokens": 4,
            "tokens": 1,
            "radius": Fraction(1),
            "eps": Fraction(1, 10),
            "values": "float32",
        }
        | change,
    )
    return dict(json.loads(json.dumps(ceiling.certificate())))


def prove(record, directory):
    prove_norms(
        record,
        open_checkpoint(directory, name="tiny"),
        sha256=weights_hash(weight_files(directory)),
        on_progress=str,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_proved_again_from_its_weights(family, models):
    record, said = certificate(models[family]), list[str]()
    told = checked(record, weights=models[family], on_progress=said.append)
    assert "Lipschitz constant of at most 10^" in told.statement
    assert told.about_a_model
    assert [line.rpartition(" block ")[2] for line in said] == ["1 of 2", "2 of 2"]


def test_a_trust_region_and_given_pairs(models):
    record = certificate(models["gpt2"], deviation=Fraction(1, 3), pairs=50, tokens=2)
    told = checked(record, weights=models["gpt2"])
    assert "50 targets of 2 tokens" in told.statement
    where = "every deviation in front of a norm at 1/3 or more on every input"
    assert told.statement.startswith(f"for prompts that keep {where}, the map from the prompt")
    assert len(set(told.assumptions)) == len(told.assumptions)
    for word in ("at least 1/3 on every input", "L-Lipschitz on the ball", "one of the counted"):
        assert sum(word in text for text in told.assumptions) == 1


def changed(record, path, value):
    """The certificate with one part replaced, or passed through a function."""
    other = copy.deepcopy(record)
    part = other
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value(part[path[-1]]) if callable(value) else value
    return other


def test_the_region_width_and_norm_are_those_of_theorem_1(models):
    record = certificate(models["gpt2"], deviation=Fraction(1))
    for key, value in {"least_deviation": "0", "norm": "matrix"}.items():
        with pytest.raises(checker.Refuted, match="region of Theorem 1"):
            checker.check(changed(record, ("inputs", "prompt_capacity", key), value))
    inside = certificate(models["gpt2"], deviation=Fraction(1), eps=Fraction(1, 9))
    for part in ("inputs", "value"):
        path = (part, "vector_counting")
        record = changed(record, path, inside[part]["vector_counting"])
    with pytest.raises(checker.Refuted, match="other sizes"):
        checker.check(record)


def test_theorem_1_speaks_of_the_models_constant(models):
    one, other = certificate(models["gpt2"]), certificate(models["llama"])
    for part in ("inputs", "value"):
        one = changed(one, (part, "prompt_capacity"), other[part]["prompt_capacity"])
    with pytest.raises(checker.Refuted, match="not the model's"):
        checker.check(one)


FIRST = ("inputs", "blocks", 0)


@pytest.mark.parametrize(
    "path",
    [
        (*FIRST, "attention", "heads", 1, "logit"),
        ("inputs", "blocks", 1, "attention", "output"),
        ("inputs", "blocks", 1, "feed_forward", "up"),
        (*FIRST, "attention_norm", "eps"),
    ],
)
def test_a_norm_cannot_be_changed_alone(path, models):
    record = certificate(models["gpt2"])
    for factor in (Fraction(999, 1000), 1 + Fraction(1, 2**50)):
        with pytest.raises(checker.Refuted, match="not the model's"):
            checker.check(changed(record, path, lambda text, by=factor: str(Fraction(text) * by)))


@pytest.mark.parametrize(
    ("family", "path", "value"),
    [
        ("gpt2", (*FIRST, "arrangement"), "post"),
        ("gpt2", (*FIRST, "arrangement"), "sideways"),
        ("gpt2", (*FIRST, "attention", "positions"), "rotary"),
        ("gpt2", (*FIRST, "attention", "heads"), []),
        ("gpt2", (*FIRST, "feed_forward", "activation"), "mish"),
        ("gpt2", (*FIRST, "feed_forward", "down"), None),
        ("gpt2", (*FIRST, "feed_forward", "gate"), "1"),
        ("gpt2", (*FIRST, "attention_norm", "eps"), "0"),
        ("gpt2", (*FIRST, "attention_norm", "gain"), "1"),
        ("gpt2", (*FIRST, "attention", "output"), "-1"),
        ("gpt2", (*FIRST, "attention", "output"), "2/4"),
        ("gpt2", (*FIRST, "attention", "output"), 3.5),
        ("gpt2", ("inputs", "weights_sha256"), "A" * 64),
        ("gemma3", (*FIRST, "attention", "head_dim"), 0),
        ("bert", ("inputs", "blocks", 1, "arrangement"), "pre"),
    ],
)
def test_norms_that_the_formulas_do_not_use_or_lack_are_refused(family, path, value, models):
    with pytest.raises(ValueError):  # noqa: PT011 - the record as a whole is of no known form
        checker.check(changed(certificate(models[family]), path, value))


# What a liar writes who computes everything anew from smaller norms.
LIES = {
    "bert": ("logit", "logit_bias", "value", "output", "up", "down", "gain"),
    "gemma3": ("query", "key", "value", "gate", "down_up", "down_gate", "gain"),
    "qwen2": ("query", "key", "query_bias", "key_bias", "up"),
    "gpt_neox": ("query", "key_bias", "down"),
}


def lowered(value, name, factor):
    """A record of norms with every number of that name multiplied."""
    if isinstance(value, dict):
        return {
            key: str(Fraction(item) * factor)
            if key == name and isinstance(item, str)
            else lowered(item, name, factor)
            for key, item in value.items()
        }
    return [lowered(item, name, factor) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("family", "name"), [(f, n) for f, names in LIES.items() for n in names])
def test_norms_that_are_too_low_are_not_proved(family, name, models):
    record = certificate(models[family])
    prove(record, models[family])
    prove(lowered(record, name, 1 + Fraction(1, 100)), models[family])
    with pytest.raises(checker.Refuted):
        prove(lowered(record, name, 1 - Fraction(1, 10**5)), models[family])


SAID = {
    "width": (("inputs", "dim"), 9, "width"),
    "blocks": (("inputs", "blocks"), lambda blocks: blocks[:1], "number of blocks"),
    "heads": ((*FIRST, "attention", "heads"), lambda heads: heads[:1], "number of heads"),
    "scale": ((*FIRST, "attention", "scale_squared"), "1/9", "factor on logits"),
    "activation": ((*FIRST, "feed_forward", "activation"), "relu", "activation"),
    "eps": ((*FIRST, "feed_forward_norm", "eps"), "1", "eps of the feed_forward_norm"),
    "outer eps": (("inputs", "outer_norm", "eps"), "1", "eps of the norm around"),
    "arrangement": ((*FIRST, "arrangement"), "parallel", "arrangement"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_is_said_of_the_model_is_compared(case, models):
    path, value, match = SAID[case]
    with pytest.raises(checker.Refuted, match=match):
        prove(changed(certificate(models["gpt2"]), path, value), models["gpt2"])


def test_a_norm_that_a_block_does_not_have_is_not_that_of_the_model(models):
    record = certificate(models["llama"])
    gemma = certificate(models["gemma3"])["inputs"]["blocks"][0]
    record = changed(record, FIRST, gemma)
    with pytest.raises(checker.Refuted, match=r"post_norm|kind of positions"):
        prove(record, models["llama"])


def test_other_weights_are_noticed(models, tmp_path):
    record = certificate(models["llama"])
    other = shutil.copytree(models["llama"], tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    for weights in (other, models["qwen2"]):
        with pytest.raises(RunFailed, match="hash of the weights"):
            checked(record, weights=weights)
    with pytest.raises(UserError):
        checked(record, weights=tmp_path)


def test_a_ceiling_of_decoys_is_no_ceiling_of_the_model(models, tmp_path):
    """The small model's norms, and the hash of files that hold a large one beside it."""
    folder = shutil.copytree(models["gpt2"], tmp_path / "decoys")
    small = load_file(folder / "model.safetensors")
    large = {name: 1000 * value for name, value in small.items()}
    decoys = {f"model.{name.removeprefix('transformer.')}": small[name] for name in small}
    save_file(large | decoys, folder / "model.safetensors", metadata={"format": "pt"})
    digest = weights_hash(weight_files(folder))
    record = changed(certificate(models["gpt2"]), ("inputs", "weights_sha256"), digest)
    checker.check(record)
    with pytest.raises(UserError, match="unknown tensor"):
        checked(record, weights=folder)


def test_bfloat16_weights_are_proved_again(models, tmp_path):
    half = shutil.copytree(models["gpt_neox"], tmp_path / "half")
    tensors = load_file(half / "model.safetensors")
    narrow = {key: value.to(torch.bfloat16) for key, value in tensors.items()}
    save_file(narrow, half / "model.safetensors", metadata={"format": "pt"})
    assert checked(certificate(half), weights=half)


def test_arrays_that_are_not_finite_prove_nothing(models):
    spoils = [
        lambda block: block.attention.output,
        lambda block: block.feed_forward.down,
    ]
    for spoil in spoils:
        checkpoint = open_checkpoint(models["gpt2"], name="tiny")
        blocks = list(checkpoint.blocks)
        spoil(blocks[0])[..., 0] = np.nan
        object.__setattr__(checkpoint, "blocks", iter(blocks))
        record = certificate(models["gpt2"])
        digest = record["inputs"]["weights_sha256"]
        with pytest.raises(checker.Refuted):
            prove_norms(record, checkpoint, sha256=digest, on_progress=str)


def test_weights_of_zero_are_proved(models, tmp_path):
    """Limits as small as doubles get, on products that are 0."""
    folder = shutil.copytree(models["gpt2"], tmp_path / "zeros")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("bias") or "h.0.mlp" in name:
            tensor.zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    record = certificate(folder)
    assert checked(record, weights=folder).about_a_model
    facts = record["inputs"]["blocks"][0]
    assert Fraction(facts["attention"]["heads"][0]["logit_bias"]) < Fraction(1, 2**1000)
    assert Fraction(facts["feed_forward"]["up"]) < Fraction(1, 2**1000)


def test_gates_of_zero_are_proved(models, tmp_path):
    folder = shutil.copytree(models["llama"], tmp_path / "zeros")
    tensors = load_file(folder / "model.safetensors")
    for name in ("gate_proj", "up_proj"):
        tensors[f"model.layers.0.mlp.{name}.weight"].zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    record = certificate(folder)
    assert checked(record, weights=folder).about_a_model
    assert Fraction(record["inputs"]["blocks"][0]["feed_forward"]["down_up"]) < Fraction(1, 2**150)


def test_what_overflows_times_zero_is_not_proved():
    wide = matrices.Near(np.ones((2, 2)), np.inf)
    assert not matrices.proves_norm_at_most(1, wide @ matrices.Near(np.zeros((2, 1))))
