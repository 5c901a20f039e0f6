"""`promptlimits certify`: a checkpoint's certificate, and every mistake in one line."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from promptlimits.cli.theorems.certify import raised
from promptlimits.testing.tiny_models import tiny_causal_lm, tiny_encoder

Call = Callable[..., Any]
RIGHT = ("--radius", "1", "--eps", "0.1", "--out", "c.json", "--quiet")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_causal_lm(
        tmp_path_factory.mktemp("made") / "small", "gpt2", dim=16, layers=2, heads=2
    )


@pytest.fixture
def small(made, here):
    """A small model in the folder that commands are run in."""
    return Path(shutil.copytree(made, here / "small"))


@pytest.mark.usefixtures("small")
def test_a_checkpoint_gets_a_certificate_that_is_checked_from_its_weights(call):
    ended = call("certify", "small", *RIGHT, "--layers")
    assert ended.code == 0, ended
    assert "at most 10^" in ended.out
    assert "the Lipschitz bound says nothing here" in ended.out
    assert "\n    2  " in ended.out
    checked = call("check", "c.json", "--model", "small", "--quiet")
    assert checked.code == 0, checked
    assert checked.out.startswith("ok: the map from the prompt to the last hidden state of the ")


@pytest.mark.usefixtures("small")
def test_json_has_both_limits_and_the_winner(call):
    ended = call("certify", "small", *RIGHT, "--json", "--pairs", "300")
    assert ended.code == 0, ended
    record = json.loads(ended.out)
    assert record["winner"] == "counting"
    assert record["lipschitz_says_nothing"] is True
    assert record["by_lipschitz"]["kappa"] > record["by_counting"]["kappa"]
    assert record["by_lipschitz"]["share_pairs"] == 300
    assert record["blocks"] == len(record["layers"]) == 2
    assert json.loads(Path("c.json").read_text())["kind"] == "model_ceiling"


@pytest.mark.usefixtures("small")
def test_a_trust_region_is_stated(call):
    wide = json.loads(call("certify", "small", *RIGHT, "--json").out)
    near = json.loads(call("certify", "small", *RIGHT, "--json", "--least-deviation", "1/2").out)
    assert near["lipschitz"]["log10"] < wide["lipschitz"]["log10"]
    assert any("at least 1/2" in item["text"] for item in near["assumptions"])
    assert not any("deviation" in item["text"] for item in wide["assumptions"])


def test_an_encoder_is_certified_and_lipschitz_may_win(call, here):
    # With a wide trust region and weights near zero the constant is small: Lipschitz wins.
    tiny_encoder(here / "encoder", dim=16, layers=1, heads=2, init_scale=1e-3)
    tensors = load_file(here / "encoder" / "model.safetensors")
    for key in tensors:
        if "LayerNorm" not in key:
            tensors[key] *= 1e-3
    save_file(tensors, here / "encoder" / "model.safetensors", metadata={"format": "pt"})
    near = ("--least-deviation", "2", "--radius", "10", "--prompt-tokens", "2")
    ended = call("certify", "encoder", *RIGHT, *near)
    assert ended.code == 0, ended
    assert "Lipschitz excludes lists from" in ended.out
    assert "on the share is the lower one" not in ended.out
    # Excluded from fewer pairs on, and yet with many pairs counting falls faster.
    many = ("--pairs", str(10**18), "--storage", "float16")
    ended = call("certify", "encoder", *RIGHT, *near, *many)
    assert "Lipschitz excludes lists from" in ended.out
    assert f"At {10**18:,} pairs, counting's limit on the share is the lower one." in ended.out
    ended = call("certify", "encoder", *RIGHT, *near, *many, "--json")
    record = json.loads(ended.out)
    assert (record["winner"], record["lower_share"]) == ("lipschitz", "counting")
    by = {kind: record[f"by_{kind}"]["share"]["log10"] for kind in ("lipschitz", "counting")}
    assert by["counting"] <= by["lipschitz"]  # by less than a float shows


def test_an_encoder_is_refused_where_tokens_are_predicted(call, here):
    tiny_encoder(here / "encoder", dim=16, layers=1, heads=2)
    ended = call("fit", "--model", "encoder", "--pairs", "pairs.csv", "--out", "o", "--quiet")
    ended.says(2, "encoder")


OPTIONS = {
    "radius of 0": (("--radius", "0"), ("--radius", "above 0")),
    "negative radius": (("--radius", "-1"), ("--radius", "-1")),
    "radius is no number": (("--radius", "wide"), ("--radius", "wide")),
    "infinite radius": (("--radius", "inf"), ("--radius", "inf")),
    "radius is NaN": (("--radius", "nan"), ("--radius", "nan")),
    "radius by zero": (("--radius", "1/0"), ("--radius",)),
    "radius of a million digits": (("--radius", "1e-9999999"), ("--radius",)),
    "eps of 0": (("--eps", "0"), ("--eps", "above 0")),
    "eps is the radius": (("--eps", "1"), ("--eps", "below the radius")),
    "eps above the targets": (
        ("--eps", "0.5", "--target-radius", "1/4"),
        ("--eps", "below the radius"),
    ),
    "negative deviation": (("--least-deviation", "-1"), ("--least-deviation",)),
    "no prompt": (("--prompt-tokens", "0"), ("--prompt-tokens", "1 or more")),
    "no tokens": (("--tokens", "0"), ("--tokens",)),
    "no pairs": (("--pairs", "0"), ("--pairs",)),
    "storage": (("--storage", "float13"), ("float13",)),
    "out is a folder": (("--out", "."), ("--out",)),
    "exponent is a superscript": (("--radius", "1e²"), ("--radius", "1e²")),
    "pairs beyond counting": (("--pairs", "1" + "0" * 30), ("--pairs", "10^18")),
    "no prompt has such a deviation": (
        ("--least-deviation", "100"),
        ("--least-deviation", "some prompt", "100"),
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.usefixtures("small")
def test_mistakes_in_options_are_one_line(case, call):
    options, words = OPTIONS[case]
    call("certify", "small", *RIGHT, *options).says(2, *words)
    assert not Path("c.json").exists()


def poison(model):
    tensors = load_file(model / "model.safetensors")
    tensors["transformer.h.0.mlp.c_fc.bias"][0] = torch.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def forget(model):
    tensors = load_file(model / "model.safetensors")
    del tensors["transformer.ln_f.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def truncate(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def rename_family(model):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "frob"}))


MODELS = {
    "NaN": (poison, ("transformer.h.0.mlp.c_fc.bias", "NaN")),
    "missing": (forget, ("transformer.ln_f.weight",)),
    "truncated": (truncate, ("truncated", "model.safetensors")),
    "family": (rename_family, ("'frob'", "gpt2")),
    "pickle": (
        lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin"),
        ("pickle",),
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_faulty_models_are_one_line(case, call, small):
    spoil, words = MODELS[case]
    spoil(small)
    call("certify", "small", *RIGHT).says(2, "small", *words)


@pytest.mark.parametrize(
    ("value", "shown"), [(44.2017, "44.21"), (44.2, "44.21"), (-0.129, "-0.12"), (3.0, "3.00")]
)
def test_limits_are_shown_rounded_up(value, shown):
    # The double 44.2 is a little above 44.2.
    assert raised(value, 2) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.23401e26, "1.235e+26"), (-1.23499e26, "-1.234e+26"), (2.0**100, "1.268e+30")],
)
def test_limits_too_long_to_read_are_rounded_up_too(value, shown):
    assert raised(value, 2) == shown


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("more", [("--pairs", str(10**18)), ("--eps", f"{10**26 - 1}/{10**26}")])
def test_huge_numbers_of_pairs_are_written(more, call):
    ended = call("certify", "small", *RIGHT, *more)
    assert ended.code == 0, ended
    assert "e+" in ended.out


def test_products_that_overflow_are_one_line(call, small):
    tensors = {key: value.double() for key, value in load_file(small / "model.safetensors").items()}
    tensors["transformer.h.1.mlp.c_fc.weight"] *= 1e308
    tensors["transformer.h.1.ln_2.weight"] *= 1e308
    save_file(tensors, small / "model.safetensors", metadata={"format": "pt"})
    call("certify", "small", *RIGHT).says(2, "block 2 of the gpt2 model", "overflow")


@pytest.mark.parametrize("bound", [0, 100])
def test_a_region_is_refused_only_where_no_prompt_is_in_it(bound, call, here):
    """Without learned positions |x| / sqrt(D) limits the first deviation; with them |p| counts."""
    tiny_causal_lm(here / "llama", "llama", dim=16, layers=1, heads=2)
    at_most = ("--radius", "2", "--least-deviation")
    assert call("certify", "llama", *RIGHT, *at_most, "1/2").code == 0
    call("certify", "llama", *RIGHT, *at_most, "0.501").says(2, "--least-deviation", "sqrt(16)")
    tiny_causal_lm(here / "gpt2", "gpt2", dim=16, layers=1, heads=2)
    tensors = load_file(here / "gpt2" / "model.safetensors")
    tensors["transformer.wpe.weight"] = torch.zeros_like(tensors["transformer.wpe.weight"])
    tensors["transformer.wpe.weight"][-1, 0] = bound
    save_file(tensors, here / "gpt2" / "model.safetensors", metadata={"format": "pt"})
    assert call("certify", "gpt2", *RIGHT, *at_most, "0.501").code == (0 if bound else 2)


# ------------------------------------------------------------------ the file for the certificate


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fails", [False, True])
def test_files_that_were_there_stay_what_they_are(fails, call, here):
    """Links, modes, empty files: what the command did not make it does not take away."""
    empty, link, secret = here / "empty", here / "link", here / "secret"
    empty.touch()
    link.symlink_to(empty)
    secret.touch()
    secret.chmod(0o600)
    model = "nowhere/at/all" if fails else "small"
    for out in (link, secret):
        assert call("certify", model, *RIGHT, "--out", str(out), "--offline").code == 2 * fails
    assert link.is_symlink()
    assert secret.stat().st_mode & 0o777 == 0o600
    for file in (empty, secret):
        assert (file.read_text() == "") == fails
    assert not [path for path in here.iterdir() if path.name.startswith(".promptlimits")]


@pytest.mark.usefixtures("small")
@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_pipe_is_written_through_and_stays(call, here):
    pipe = here / "pipe"
    os.mkfifo(pipe)
    call("certify", "nowhere/at/all", *RIGHT, "--out", str(pipe), "--offline").says(2, "nowhere")
    assert pipe.is_fifo()
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    assert call("certify", "small", *RIGHT, "--out", str(pipe)).code == 0
    reader.join(timeout=30)
    assert json.loads(got[0])["kind"] == "model_ceiling"
    assert pipe.is_fifo()


@pytest.mark.usefixtures("small")
def test_a_full_disk_leaves_the_old_certificate(call, here, monkeypatch):
    (here / "c.json").write_text("old")

    def full(path, content):
        path.write_bytes(content[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("promptlimits.base.files._write_durably", full)
    call("certify", "small", *RIGHT).says(1, "c.json", "No space left")
    assert (here / "c.json").read_text() == "old"
    assert sorted(path.name for path in here.iterdir()) == ["c.json", "pairs.csv", "small"]


def test_no_such_model(call):
    call("certify", "nowhere/at/all", *RIGHT, "--offline").says(2, "nowhere")


@pytest.mark.usefixtures("small")
def test_interruption_leaves_no_certificate(call, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("promptlimits.lipschitz.checkpoint.model_ceiling.block_facts", interrupt)
    ended = call("certify", "small", *RIGHT)
    ended.says(130, "the same command starts from the beginning")
    assert not Path("c.json").exists()
