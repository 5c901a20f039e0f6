"""`promptlimits check` through the entry point, on certificates whole, false and unreadable."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from promptlimits.bounds.counting import Counting
from promptlimits.lipschitz.checkpoint.model_ceiling import model_ceiling, read_facts
from promptlimits.nets.files.folder import weight_files, weights_hash
from promptlimits.nets.load.blocks import open_checkpoint
from promptlimits.testing.tiny_models import tiny_causal_lm

Call = Callable[..., Any]


@pytest.fixture
def record(here):
    """A certificate, and ./ceiling.json with it."""
    sizes = {"dim": 32, "prompt_tokens": 1, "values": "float32", "answers": 50, "pool": 400}
    return write(here, Counting.model_validate(sizes).certificate())


def write(here, record):
    (here / "ceiling.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record


def test_a_true_certificate(call, record):
    ended = call("check", "ceiling.json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("ok: Of all lists of 400 answers, each drawn at random from a set ")
    assert "more than 261 answered right by any prompt of 1 token (float32)" in ended.out
    assert ended.out.count("\n") == 1


def test_json(call, record):
    ended = call("check", "ceiling.json", "--json")
    assert ended.code == 0
    told = json.loads(ended.out)
    assert told["ok"] is True
    assert 0 < told["seconds"] < 60
    assert told["from_weights"] is False
    assert told["statement"].startswith("Of all lists of 400 answers")
    assert told["assumptions"] == list(Counting.model_validate(record["inputs"]).rests_on())


def test_a_false_one(call, record, here):
    record["value"]["pairs"] = 262
    write(here, record)
    call("check", "ceiling.json").says(1, "does not hold: pairs is not 262", "do not rely on it")
    call("check", "ceiling.json", "--json").says(1, "does not hold")


def test_words_cannot_be_smuggled_in(call, record, here):
    """Formats are counts: there is no name that could be written in look-alike letters."""
    for values in ("float32", "fl\u043eat32", "fp32", "4278190080 values"):
        write(here, record | {"inputs": record["inputs"] | {"values": values}})
        call("check", "ceiling.json").says(2, "be a counting certificate as promptlimits writes it")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "cannot"),
        (b"\xff\xfe", "cannot"),
        (b"{", "cannot"),
        (b'{"schema": 1, "schema": 1}', "given twice"),
        (b'{"schema": NaN}', "NaN"),
        (b"[" * 100_000, "cannot"),
        (b"[1]", "be a certificate"),
        (b'{"schema": 1, "kind": "counting"}', "be a counting certificate"),
        (b'{"schema": 2}', "be a certificate"),
    ],
)
def test_what_is_no_certificate(call, here, content, word):
    (here / "ceiling.json").write_bytes(content)
    call("check", "ceiling.json").says(2, word)


def test_no_file(call, here):
    call("check", "missing.json").says(2, "missing.json", "No such file")
    call("check", ".").says(2, "a directory where a file should be")


def test_a_pipe_is_no_certificate(call, here):
    os.mkfifo(here / "ceiling.json")
    call("check", "ceiling.json").says(2, "ceiling.json", "a pipe where a file should be")


def test_an_enormous_file_is_no_certificate(call, here):
    (here / "ceiling.json").touch()
    os.truncate(here / "ceiling.json", 1 << 40)
    call("check", "ceiling.json").says(2, "1,099,511,627,776 bytes")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model, and the certificate of its ceiling."""
    folder = tmp_path_factory.mktemp("made")
    model = tiny_causal_lm(folder / "small", "gpt2", dim=8, layers=1, heads=1)
    ceiling = model_ceiling(
        read_facts(open_checkpoint(model, name="small")),
        weights_sha256=weights_hash(weight_files(model)),
        values="float32",
        prompt_tokens=2,
        tokens=1,
        radius=Fraction(1),
        eps=Fraction(1, 10),
    )
    (folder / "ceiling.json").write_text(json.dumps(ceiling.certificate()), encoding="utf-8")
    return folder


@pytest.fixture
def about_a_model(made, here):
    """./ceiling.json about ./small."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    return dict(json.loads((here / "ceiling.json").read_text()))


@pytest.mark.usefixtures("about_a_model")
def test_what_was_not_checked_against_a_model_says_so_first(call):
    ended = call("check", "ceiling.json")
    assert (ended.code, ended.err) == (4, "")
    assert ended.out.startswith("not checked against a model: the map from the prompt to the last")
    told = call("check", "ceiling.json", "--json")
    assert told.code == 4
    assert json.loads(told.out)["from_weights"] is False


@pytest.mark.usefixtures("about_a_model")
def test_norms_are_proved_again_from_weights(call):
    ended = call("check", "ceiling.json", "--model", "small")
    assert ended.code == 0, ended
    assert ended.out.startswith("ok: the map from the prompt to the last hidden state of the model")
    assert ended.err.endswith("... proving the norms of block 1 of 1\n")
    told = call("check", "ceiling.json", "--model", "small", "--json", "--quiet")
    assert (told.code, told.err) == (0, "")
    record = json.loads(told.out)
    assert record["from_weights"] is True
    assert record["seconds"] > 0
    assert any(text.startswith("The model computes with real") for text in record["assumptions"])


def test_weights_that_do_not_fit(call, about_a_model, here):
    other = {"inputs": about_a_model["inputs"] | {"weights_sha256": "0" * 64}}
    write(here, about_a_model | other)
    call("check", "ceiling.json", "--model", "small", "--quiet").says(1, "the hash of the weights")
    (here / "weights.npz").touch()
    call("check", "ceiling.json", "--model", "weights.npz", "--quiet").says(2, "weights.npz")


@pytest.mark.usefixtures("about_a_model")
def test_no_such_model(call):
    call("check", "ceiling.json", "--model", "missing").says(2, "--model must be", "missing")


def test_a_kind_that_rests_on_no_weights(call, record):
    call("check", "ceiling.json", "--model", ".").says(
        2, "be of kind model_ceiling or", "leave the model out"
    )


def test_an_unknown_kind(call, record, here):
    write(here, record | {"kind": "covering"})
    call("check", "ceiling.json").says(2, "its kind is none of counting, ")


def test_it_needs_no_torch(record):
    code = (
        "import sys\n"
        "from promptlimits.cli.main import main\n"
        "sys.argv = ['promptlimits', 'check', 'ceiling.json']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as ending:\n"
        "    assert not ending.code\n"
        "loaded = {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
