"""Each kind of certificate reaches its checker, and no other one is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from promptlimits.base.errors import UserError
from promptlimits.checking import dispatch
from promptlimits.checking.counting import check_counting
from promptlimits.checking.dispatch import check_certificate
from promptlimits.theory.number_formats import number_format
from promptlimits.theory.token_capacity import counting_ceiling


def counting() -> dict[str, Any]:
    ceiling = counting_ceiling(
        number=number_format("float16"), dim=3, prompt_tokens=2, answer_set_size=10
    )
    return ceiling.certificate.to_json()


def test_counting() -> None:
    assert check_certificate(counting()) == check_counting(counting())


@pytest.mark.parametrize("record", [None, [], "counting", 1, {}, {"kind": None}, {"kind": ["a"]}])
def test_what_has_no_kind(record: Any) -> None:
    with pytest.raises(UserError, match="must be a counting certificate or of another kind"):
        check_certificate(record)


def test_an_unknown_kind_names_those_that_are_known() -> None:
    with pytest.raises(UserError, match=r"context_capacity, counting, .*, washout") as refusal:
        check_certificate(counting() | {"kind": "covering"})
    assert "got kind 'covering'" in str(refusal.value)


def test_a_kind_without_weights_takes_none() -> None:
    with pytest.raises(UserError, match="model_ceiling or transformer_lipschitz, got counting"):
        check_certificate(counting(), weights=Path())


@pytest.mark.parametrize("kind", sorted(dispatch._FROM_WEIGHTS))
def test_weights_reach_the_checker_and_the_statement(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def check(certificate: Any, *, weights: Path | None, on_progress: Callable[[str], None]) -> str:
        seen.append(weights)
        on_progress("layer 1")
        return "it holds"

    module = ModuleType("fake")
    module.check = check  # type: ignore[attr-defined]
    monkeypatch.setattr(dispatch, "import_module", lambda name: module)
    lines: list[str] = []
    said = check_certificate({"kind": kind})
    assert said.startswith("it holds; ")
    assert "taken from the certificate, not checked" in said
    said = check_certificate({"kind": kind}, weights=Path("a"), on_progress=lines.append)
    assert "proved again" in said
    assert seen == [None, Path("a")]
    assert lines == ["layer 1"]


def test_every_checker_is_there() -> None:
    for place in dispatch._CHECKERS.values():
        module, _, name = place.partition(":")
        assert callable(getattr(dispatch.import_module(module), name))


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, promptlimits.checking.dispatch\n"
        "loaded = {'flint', 'numpy', 'torch', 'promptlimits.base.bound',\n"
        "          'promptlimits.checking.counting'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
