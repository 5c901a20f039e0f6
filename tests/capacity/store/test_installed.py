"""What is installed is held against what this package's own metadata allows."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from promptlimits.capacity.store.installed import installed, pip_command

ASKED = ["peft<0.22,>=0.21", "pytest>=99; extra == 'dev'", "Huggingface_Hub<3,>=2"]


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions that are installed, to be changed; the package asks for `ASKED`."""
    versions = {"peft": "0.21.2", "huggingface-hub": "2.4.0", "pytest": "9.2.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", {"promptlimits": ASKED}.__getitem__)
    return versions


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("0.21.0", True),
        ("0.21.2+cpu", True),
        ("0.21.3.dev0", True),
        ("0.20.0", False),
        ("0.22.0", False),
    ],
)
def test_a_version_is_good_within_the_range(
    version: str, good: bool, metadata: dict[str, str]
) -> None:
    metadata["peft"] = version
    found = installed("peft")
    assert (found.version, found.good) == (version, good)
    assert found.requirement == "peft>=0.21,<0.22"


def test_a_library_that_is_not_there_is_not_good(metadata: dict[str, str]) -> None:
    del metadata["peft"]
    found = installed("peft")
    assert (found.version, found.good) == (None, False)


def test_a_name_may_be_written_in_several_ways(metadata: dict[str, str]) -> None:
    assert installed("huggingface-hub").requirement == "huggingface-hub>=2,<3"


def test_what_an_extra_asks_for_is_asked_of_nobody_else(metadata: dict[str, str]) -> None:
    found = installed("pytest")
    assert (found.good, found.requirement) == (True, "pytest")


def test_the_command_of_pip_is_quoted_for_a_shell(metadata: dict[str, str]) -> None:
    command = pip_command([installed("peft"), installed("huggingface-hub")])
    words = [sys.executable, "-m", "pip", "install", "peft>=0.21,<0.22", "huggingface-hub>=2,<3"]
    assert shlex.split(command) == words
    assert ">=" not in command.replace("'peft>=0.21,<0.22'", "").replace(
        "'huggingface-hub>=2,<3'", ""
    )


@pytest.mark.parametrize("name", ["torch", "transformers", "peft", "tokenizers", "safetensors"])
def test_the_ranges_are_those_of_pyproject(name: str, repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    (asked,) = [one for one in map(Requirement, project["dependencies"]) if one.name == name]
    found = installed(name)
    assert found.good
    assert Requirement(found.requirement) == asked
