"""--kind names what a prompt is; anything else is refused before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptlimits.base.errors import UserError
from promptlimits.cli import options


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("soft", ("soft",)),
        ("prefix", ("prefix",)),
        ("soft,prefix", ("soft", "prefix")),
        (" prefix , soft ", ("soft", "prefix")),
    ],
)
def test_kinds_are_read_in_any_order(text: str, kinds: tuple[str, ...]) -> None:
    assert options.prompt_kinds(text) == kinds


@pytest.mark.parametrize("text", ["", "lora", "soft,", "soft,soft", "Soft", "soft prefix", "\x1b"])
def test_what_is_no_kind_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--kind must be soft or prefix or both"):
        options.prompt_kinds(text)


def test_one_kind_is_one() -> None:
    assert options.prompt_kind("prefix") == "prefix"
    with pytest.raises(UserError, match="--kind must be soft or prefix, got"):
        options.prompt_kind("soft,prefix")


@pytest.mark.parametrize("command", ["bracket", "fit"])
def test_a_command_refuses_before_it_makes_a_folder(command: str, tmp_path: Path) -> None:
    from promptlimits.cli.product.bracket import bracket
    from promptlimits.cli.product.fit import fit

    run = {"bracket": bracket, "fit": fit}[command]
    with pytest.raises(UserError, match="--kind"):
        run(kind="lora", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_kinds_are_those_of_the_models() -> None:
    from promptlimits.nets.protocol import PromptKind

    assert tuple(kind.value for kind in PromptKind) == options.KINDS
