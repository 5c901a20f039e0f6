import hashlib
import importlib.metadata
import json
import shlex
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from promptlimits.base.errors import UserError
from promptlimits.capacity.store.provenance import (
    _checkout,
    canonical_json,
    installed,
    pip_command,
    provenance,
    spec_hash,
)


def test_the_hash_is_of_the_canonical_text():
    text = '{"a":[1,1.5,null,true],"b":"\\u00c5"}'
    assert canonical_json({"b": "Å", "a": [1, 1.5, None, True]}) == text
    assert (
        spec_hash({"b": "Å", "a": [1, 1.5, None, True]})
        == hashlib.sha256(text.encode()).hexdigest()
    )


def test_floats_read_back_bit_for_bit():
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    assert [x.hex() for x in json.loads(canonical_json(numbers))] == [x.hex() for x in numbers]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}, b"bytes", {(1,): 2}])
def test_what_is_not_json_is_refused(bad):
    with pytest.raises(UserError, match="spec must hold only JSON values with finite numbers"):
        spec_hash({"value": bad})


def test_a_value_inside_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(UserError, match="only JSON values"):
        canonical_json(loop)


def test_it_names_versions_and_no_place():
    facts = provenance({"device": "cpu", "python": "mine"})
    assert facts["device"] == "cpu"
    assert facts["python"] == "mine", "what the caller knows wins"
    assert {"promptlimits", "git_commit", "git_dirty", "torch", "transformers", "peft"} <= set(
        facts
    )
    text = canonical_json(facts)
    assert "/" not in text.replace("\\/", "/"), "a path of the machine"


def test_gathering_imports_no_library():
    code = (
        "import sys; from promptlimits.capacity.store import provenance; facts = provenance()\n"
        "assert facts['torch'], facts\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_outside_any_checkout_has_no_commit(tmp_path):
    assert _checkout(tmp_path) == {"git_commit": None, "git_dirty": None}


def test_a_checkout_knows_its_commit_and_whether_it_changed(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True
        )

    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "provenance.py").write_text("1")
    git("init")
    assert _checkout(folder) == {"git_commit": None, "git_dirty": None}, "not tracked"
    git("add", ".")
    git("commit", "-m", "first")
    _checkout.cache_clear()
    clean = _checkout(folder)
    assert len(clean["git_commit"]) == 40
    assert clean["git_dirty"] is False
    (folder / "provenance.py").write_text("2")
    assert _checkout(folder) is clean, "kept for the process"
    _checkout.cache_clear()
    assert _checkout(folder) == {**clean, "git_dirty": True}


# --- what is installed, held against what the metadata allow ----------------------------------

ASKED = ["peft<0.22,>=0.21", "pytest>=99; extra == 'dev'", "Huggingface_Hub<3,>=2"]


@pytest.fixture
def metadata(monkeypatch):
    """Versions that are installed, to be changed; the package asks for `ASKED`."""
    versions = {"peft": "0.21.2", "huggingface-hub": "2.4.0", "pytest": "9.2.0"}

    def version(name):
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
def test_a_version_is_good_within_the_range(version, good, metadata):
    metadata["peft"] = version
    found = installed("peft")
    assert (found.version, found.good) == (version, good)
    assert found.requirement == "peft>=0.21,<0.22"


def test_a_library_that_is_not_there_is_not_good(metadata):
    del metadata["peft"]
    found = installed("peft")
    assert (found.version, found.good) == (None, False)


def test_a_name_may_be_written_in_several_ways(metadata):
    assert installed("huggingface-hub").requirement == "huggingface-hub>=2,<3"


def test_what_an_extra_asks_for_is_asked_of_nobody_else(metadata):
    found = installed("pytest")
    assert (found.good, found.requirement) == (True, "pytest")


def test_the_command_of_pip_is_quoted_for_a_shell(metadata):
    command = pip_command([installed("peft"), installed("huggingface-hub")])
    words = [sys.executable, "-m", "pip", "install", "peft>=0.21,<0.22", "huggingface-hub>=2,<3"]
    assert shlex.split(command) == words
    assert ">=" not in command.replace("'peft>=0.21,<0.22'", "").replace(
        "'huggingface-hub>=2,<3'", ""
    )


@pytest.mark.parametrize("name", ["torch", "transformers", "peft", "tokenizers", "safetensors"])
def test_the_ranges_are_those_of_pyproject(name, repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    (asked,) = [one for one in map(Requirement, project["dependencies"]) if one.name == name]
    found = installed(name)
    assert found.good
    assert Requirement(found.requirement) == asked
