"""A record of the store is believed only if it reads and its files stand; else it is made again."""

import json
from pathlib import Path

import pytest
from tests.report.conftest import put, sample_record

from promptlimits.capacity.record import stored_record, write_record
from promptlimits.record.record import read_record


@pytest.mark.parametrize(
    "known",
    [
        None,
        {},
        {"kind": "bracket", "schema": 2},
        {**sample_record(), "assumptions": []},
        put(sample_record(), {"brackets.0.floor.pairs": "40"}),
        put(sample_record(), {"brackets.0.floor.witness": None}),
    ],
)
def test_what_does_not_read_is_made_again(known, tmp_path):
    assert stored_record(known, tmp_path) is None


@pytest.mark.parametrize("pairs", [0, 40])
def test_a_record_stands_with_its_folder_its_file_and_its_certificates(tmp_path, pairs):
    from hashlib import sha256

    record = sample_record(held={1: pairs})
    certificate = tmp_path / "ceiling-1-tokens.json"
    certificate.write_text("{}")
    digest = sha256(certificate.read_bytes()).hexdigest()
    put(record, {"out": str(tmp_path), "brackets.0.ceiling.certificate_sha256": digest})
    assert stored_record(record, tmp_path) is None, "nothing is written yet"
    write_record(tmp_path, read_record(record))
    assert json.loads((tmp_path / "bracket.json").read_text()) == record
    # A prompt that is said to be held must be there, too.
    assert (stored_record(record, tmp_path) is None) == (pairs > 0)
    moved = put(record, {"out": str(Path("elsewhere"))})
    assert stored_record(moved, tmp_path) is None
    put(record, {"out": str(tmp_path)})
    certificate.write_text("{ }")
    assert stored_record(record, tmp_path) is None
