"""A checkpoint's ceiling is verified from its norms, and its norms from the weights."""

from __future__ import annotations

import copy
import json
import shutil
from fractions import Fraction

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checking.altered import Alteration, alterations, assert_all_refused, sealed_again

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.checking.dispatch import check_certificate, stated_assumptions
from promptlimits.checking.model_ceiling import check
from promptlimits.lipschitz.checkpoint.model_bound import model_bound, read_facts
from promptlimits.lipschitz.checkpoint.model_ceiling import model_ceiling
from promptlimits.lipschitz.checkpoint.weights.checkpoint import open_checkpoint
from promptlimits.nets.files.folder import weight_files
from promptlimits.nets.files.hashing import weights_hash
from promptlimits.testing.tiny_models import tiny_causal_lm, tiny_encoder
from promptlimits.theory.number_formats import NumberFormat, number_format
from promptlimits.theory.vector_counting import stored

FAMILIES = ("bert", "gemma3", "gpt2", "gpt_neox", "llama", "qwen2")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One tiny model of each family."""
    made = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        if family == "bert":
            tiny_encoder(folder, dim=8, layers=2, heads=2)
        else:
            tiny_causal_lm(folder, family, dim=8, layers=2, heads=2, kv_heads=1)
        made[family] = folder
    return made


def certificate(directory, *, deviation=Fraction(0), **change):
    bound = model_bound(read_facts(open_checkpoint(directory, name="tiny")), deviation=deviation)
    asked = {"prompt_tokens": 4, "tokens": 1, "radius": Fraction(1), "eps": Fraction(1, 10)}
    asked["prompts"] = stored(number_format("float32"))
    ceiling = model_ceiling(
        bound,
        name="tiny",
        weights_sha256=weights_hash(weight_files(directory)),
        **asked | change,
    )
    return json.loads(json.dumps(ceiling.certificate.to_json()))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_proved_again_from_its_weights(family, models):
    record = certificate(models[family])
    said = []
    assert "Lipschitz constant of at most 10^" in check(record, on_progress=said.append)
    assert said == []
    told = check_certificate(record, weights=models[family], on_progress=said.append)
    assert told.endswith("proved again from them")
    assert len(said) == 2


def test_a_trust_region_and_given_pairs(models):
    record = certificate(models["gpt2"], deviation=Fraction(1, 3), pairs=50, tokens=2)
    said = check(record, weights=models["gpt2"])
    assert "50 targets of 2 tokens" in said
    assert "at least 1/3 on every input" in json.dumps(record)
    where = "every deviation in front of a norm at 1/3 or more on every input"
    assert said.startswith(f"for prompts that keep {where}, the map from the prompt")
    texts = [item["text"] for item in stated_assumptions(record)]
    assert len(set(texts)) == len(texts)
    for word in ("at least 1/3 on every input", "L-Lipschitz on the ball", "one of the counted"):
        assert sum(word in text for text in texts) == 1


def test_the_region_is_that_of_theorem_1(models):
    record, all_prompts = (
        certificate(models["gpt2"], deviation=Fraction(place)) for place in (1, 0)
    )
    record["inputs"]["prompt_capacity"] = all_prompts["inputs"]["prompt_capacity"]
    with pytest.raises(RunFailed):
        check(sealed_again(record))
    moved = certificate(models["gpt2"], deviation=Fraction(1))
    inner = moved["inputs"]["prompt_capacity"]
    for bound in (inner["bound"], *inner["bound"]["factors"]):
        bound["assumptions"].pop()
    inner["inputs"]["least_deviation"] = "0"
    moved["inputs"]["prompt_capacity"] = sealed_again(inner)
    with pytest.raises(RunFailed, match="the region of Theorem 1"):
        check(sealed_again(moved))


def raised(record, path, factor):
    """The certificate with one norm multiplied, and the digest computed anew."""
    changed = copy.deepcopy(record)
    part = changed["inputs"]["facts"]
    for key in path[:-1]:
        part = part[key]
    value = Fraction(part[path[-1]]) * factor
    part[path[-1]] = str(value)
    return sealed_again(changed)


@pytest.mark.parametrize(
    "path",
    [
        ("blocks", 0, "attention", "heads", 1, "logit"),
        ("blocks", 1, "attention", "output"),
        ("blocks", 1, "feed_forward", "up"),
        ("blocks", 0, "attention_norm", "eps"),
    ],
)
def test_a_norm_cannot_be_changed_alone(path, models):
    record = certificate(models["gpt2"])
    for factor in (Fraction(999, 1000), 1 + Fraction(1, 2**50)):
        with pytest.raises((RunFailed, UserError)):
            check(raised(record, path, factor))


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
            key: (
                str(Fraction(item) * factor)
                if key == name and isinstance(item, str)
                else lowered(item, name, factor)
            )
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [lowered(item, name, factor) for item in value]
    return value


@pytest.mark.parametrize(("family", "name"), [(f, n) for f, names in LIES.items() for n in names])
def test_norms_that_are_too_low_are_not_proved(family, name, models):
    from promptlimits.checking.model_facts import read_model
    from promptlimits.checking.model_weights import prove_norms

    record = certificate(models[family])
    digest = record["inputs"]["weights_sha256"]

    def prove(facts):
        prove_norms(read_model(facts), models[family], digest=digest, on_progress=str)

    facts = record["inputs"]["facts"]
    prove(facts)
    prove(lowered(facts, name, 1 + Fraction(1, 100)))
    with pytest.raises(RunFailed):
        prove(lowered(facts, name, 1 - Fraction(1, 10**5)))


def test_other_weights_are_noticed(models, tmp_path):
    record = certificate(models["llama"])
    other = shutil.copytree(models["llama"], tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunFailed, match="hash of the weights"):
        check(record, weights=other)
    with pytest.raises(RunFailed, match="hash"):
        check(record, weights=models["qwen2"])
    with pytest.raises(UserError):
        check(record, weights=tmp_path)


def test_bfloat16_weights_are_proved_again(models, tmp_path):
    half = shutil.copytree(models["gpt_neox"], tmp_path / "half")
    tensors = load_file(half / "model.safetensors")
    narrow = {key: value.to(torch.bfloat16) for key, value in tensors.items()}
    save_file(narrow, half / "model.safetensors", metadata={"format": "pt"})
    assert check(certificate(half), weights=half)


def excused(change: Alteration) -> bool:
    """The model's name and the hash: without weights, they are words."""
    return change.path[:2] in {("inputs", "model"), ("inputs", "weights_sha256")}


# Some thousand alterations of a certificate, each of which is parsed and recomputed.
@pytest.mark.slow
def test_nothing_can_be_altered(models, tmp_path):
    folder = tiny_causal_lm(tmp_path, "llama", dim=8, layers=2, heads=1, kv_heads=1)
    record = certificate(folder, prompt_tokens=1)
    assert_all_refused(check, record, excused=excused)


def test_a_sample_of_alterations(models):
    record = certificate(models["bert"], prompt_tokens=1)
    for sealed in (False, True):
        for number, change in enumerate(alterations(record, sealed=sealed)):
            if number % (400 if sealed else 2000) == 7 and not (sealed and excused(change)):
                with pytest.raises((RunFailed, UserError)):
                    check(change.record)


def test_the_count_inside_lends_no_name(models):
    text = json.dumps(certificate(models["gpt2"], prompts=stored(NumberFormat(name="t", values=2))))
    for name, good in (("a bit", True), ("float32", False), ("real numbers, float64", False)):
        record = json.loads(text.replace("t: 2 values", f"{name}: 2 values"))
        inside = sealed_again(record["inputs"]["vector_counting"])
        record["inputs"]["vector_counting"] = inside
        record = sealed_again(record)
        if good:
            assert "a bit: 2 values" in check(record)
            continue
        with pytest.raises(RunFailed, match="another number of values"):
            check(record)
