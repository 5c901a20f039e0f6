"""Tiny checkpoints, wheels and GGUF files, all made here: nothing is fetched."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from promptlimits.nets.files.catalog import CatalogEntry, CatalogFile, Wheel
from promptlimits.testing.tiny_models import tiny_causal_lm


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("PROMPTLIMITS_CACHE", str(directory))
    return directory


@pytest.fixture(scope="session")
def _llama(tmp_path_factory):
    return tiny_causal_lm(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def checkpoint(_llama, tmp_path):
    """A whole tiny Llama, to be spoiled by the test."""
    return Path(shutil.copytree(_llama, tmp_path / "tiny"))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of the test's own, the only one that pip sees."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def _write_wheel(index, package, members):
    module = package.replace("-", "_")
    information = f"{module}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    everything = members | {
        f"{information}/METADATA": metadata.encode(),
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{information}/RECORD": b"",
    }
    path = index / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in everything.items():
            archive.writestr(name, content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(package=package, version="1.0", sha256=digest, megabytes=1)


@pytest.fixture
def make_wheel(index):
    """Put a wheel with these files on the index."""
    return lambda package, members: _write_wheel(index, package, members)


@pytest.fixture
def make_entry(make_wheel):
    """A catalog entry over one wheel that holds `contents`, and a licence, as they stand."""

    def make(contents, **changes):
        files = {"LICENSE": b"as you like"} | contents
        wheel = make_wheel("tiny-model", {f"pkg/{name}": text for name, text in files.items()})
        return CatalogEntry(
            **{
                "name": "tiny",
                "description": "a tiny model",
                "licence": "MIT",
                "parameters": 1,
                "files": tuple(
                    CatalogFile(
                        name=name,
                        members=((wheel, f"pkg/{name}"),),
                        sha256=hashlib.sha256(text).hexdigest(),
                    )
                    for name, text in files.items()
                ),
                "converted_megabytes": 1,
                "notes": (),
            }
            | changes
        )

    return make
