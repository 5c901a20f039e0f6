"""The command line as a function: arguments in; exit code and both streams out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from promptlimits.cli.main import main
from promptlimits.testing.tiny_models import tiny_causal_lm

if TYPE_CHECKING:
    pass

PAIRS = "key,value\nFrance,Paris\nGermany,Berlin\nItaly,Rome\nSpain,Madrid\n"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def says(self, code, *words):
        """Check that it said one line, in the one form, and nothing else."""
        assert self.code == code, self
        assert self.out == "", self
        assert self.err.endswith("\n"), self
        assert len(self.err.splitlines()) == 1, self
        assert self.err.startswith("promptlimits: "), self
        assert "Traceback" not in self.err, self
        assert "; " in self.err, "there is no remedy"
        for word in words:
            assert word in self.err, self


Call = Callable[..., Ended]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder to stand in, with a list of pairs and a cache of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "pairs.csv").write_text(PAIRS, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PROMPTLIMITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "critical")
    monkeypatch.setenv("HF_HUB_VERBOSITY", "critical")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("PROMPTLIMITS_DEBUG", raising=False)
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the entry point in this process: what it does, without the seconds of an import."""

    def call_it(*arguments):
        monkeypatch.setattr(sys, "argv", ["promptlimits", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main()
        said = capsys.readouterr()
        assert isinstance(ending.value.code, int)
        return Ended(code=ending.value.code, out=said.out, err=said.err)

    return call_it


@pytest.fixture(scope="session")
def script():
    """The installed entry point."""
    found = shutil.which("promptlimits", path=str(Path(sys.executable).parent))
    assert found is not None, "promptlimits is not installed beside this Python"
    return found


@pytest.fixture
def spawn(script):
    """Run the installed entry point in a process of its own."""

    def spawn_it(*arguments, **variables):
        done = subprocess.run(
            [script, *arguments],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr)

    return spawn_it


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny GPT-2; not to be changed."""
    return tiny_causal_lm(tmp_path_factory.mktemp("models") / "tiny", "gpt2")


@pytest.fixture(scope="session")
def tiny_parts(tiny):
    """The tiny GPT-2, loaded once."""
    from promptlimits.nets.load.load import load_parts

    return load_parts(str(tiny))


@pytest.fixture
def model(tiny, here):
    """A tiny GPT-2 at ./tiny, to be spoiled."""
    return Path(shutil.copytree(tiny, here / "tiny"))


@pytest.fixture(scope="session")
def _witness(tiny_parts, tmp_path_factory):
    import torch

    from promptlimits.capacity.witness.format import save_witness
    from promptlimits.nets.protocol import EncodedPair

    codec = tiny_parts.codec
    pairs = [
        EncodedPair(
            key=key,
            value=value,
            key_ids=codec.encode_key(key),
            value_ids=(*codec.encode_value(f" {value}"), codec.end_id),
            joiner=" ",
        )
        for key, value in (("France:", "Paris"), ("Italy:", "Rome"))
    ]
    folder = tmp_path_factory.mktemp("witnesses") / "witness"
    save_witness(
        folder,
        prompt=torch.ones(2, tiny_parts.card.dim),
        card=tiny_parts.card,
        task_name="tiny",
        task_hash="0",
        pairs=pairs,
    )
    return folder


@pytest.fixture
def witness(_witness, here):
    """A witness at ./witness whose pairs no prompt was trained for, to be spoiled."""
    return Path(shutil.copytree(_witness, here / "witness"))
