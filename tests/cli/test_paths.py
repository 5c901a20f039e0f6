"""Paths as file systems allow them: with leading dashes, blanks, bytes that are no text, pipes."""

import os
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptlimits.base.errors import command, quoted
from promptlimits.cli.product.session import check_line

Call = Callable[..., Any]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")

NO_UTF8 = os.fsdecode(b"b\xffa'd")
TRAINING = ("--pairs", "pairs.csv", "--quiet")


@pytest.mark.parametrize(
    "path", ["plain/w", "-w", "--json", "a b/w", "it's $HOME/`w`;*", "\n", NO_UTF8, f"-{NO_UTF8}"]
)
def test_a_printed_path_is_one_word_of_a_shell_and_no_option(path):
    done = subprocess.run(
        ["bash", "-c", f'printf "%s\\0" {quoted(path)} {command([path])}'],
        capture_output=True,
        check=True,
    )
    shown, joined, _ = done.stdout.split(b"\0")
    assert os.fsdecode(joined) == path
    assert not shown.startswith(b"-")
    assert Path(os.fsdecode(shown)) == Path(path)
    assert command([path]).encode(), "it is text"


def test_the_check_line_names_a_model_of_ones_own():
    said = check_line(Path("-o/witness 1"), "-my model")
    assert shlex.split(said) == [
        *("Check:", "promptlimits", "verify", "./-o/witness 1", "--model", "./-my model"),
    ]
    assert check_line(Path("o/w"), "SmolLM2-135M") == "Check:  promptlimits verify o/w"


@pytest.mark.parametrize("name", ["bracket", "fit"])
def test_an_output_folder_that_stock_tools_cannot_open_is_refused_first(name, call, here):
    call(name, "--model", "nowhere", *TRAINING, "--out", NO_UTF8).says(2, "--out", "UTF-8", r"\xff")
    assert [path.name for path in here.iterdir()] == ["pairs.csv"]


def test_a_model_under_a_path_that_is_no_text_is_refused_before_it_is_read(call, model, here):
    model.rename(here / NO_UTF8)
    call("bracket", "--model", NO_UTF8, *TRAINING, "--out", "out").says(2, "--model", "UTF-8")


def test_other_folders_that_are_no_text_are_one_line(call, witness, here):
    witness.rename(here / NO_UTF8)
    call("verify", NO_UTF8).says(2, "DIR", "UTF-8", r"\xff")
    call("report", NO_UTF8).says(2, "bracket.json")
    call("check", f"{NO_UTF8}/ceiling.json").says(2, "ceiling.json")


@pytest.mark.usefixtures("model")
def test_pairs_whose_name_is_no_text_are_trained_and_reported(call, here):
    shutil.move(here / "pairs.csv", here / f"{NO_UTF8}.csv")
    bracket = ("bracket", "--model", "tiny", "--pairs", f"{NO_UTF8}.csv", "--out", "out")
    quick = ("--quiet", "--max-steps", "2", "--no-control")
    for options in ((), ("--json",)):
        ended = call(*bracket, *quick, *options)
        assert (ended.code, ended.err) == (0, ""), ended
    ended = call("report", "out", "--plot", "figure.svg")
    assert (ended.code, ended.err) == (0, "")
    assert "held against prompt length" in "".join(
        ET.parse(here / "figure.svg").getroot().itertext()
    )
    assert r"\xff" in (here / "out/report.html").read_text()


def test_the_output_folder_is_tried_without_touching_what_is_there(call, here):
    theirs = here / "out" / ".writable"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    call("bracket", "--model", "nowhere", *TRAINING, "--out", "out").says(2, "nowhere")
    assert theirs.read_text() == "theirs"


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def sparse(path):
    path.touch()
    os.truncate(path, 10**12)


@pytest.mark.parametrize("put", [pipe, endless, sparse, Path.mkdir])
def test_what_is_no_plain_file_is_refused_at_once(put, call, here, witness):
    (here / "out").mkdir()
    put(here / "out/bracket.json")
    call("report", "out").says(2, "bracket.json")
    call("check", "out/bracket.json").says(2, "bracket.json")
    for name in ("adapter_config.json", "adapter_model.safetensors", "witness.json"):
        (witness / name).unlink()
        put(witness / name)
        call("verify", "witness").says(2, name)
