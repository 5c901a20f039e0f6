"""The live display says of what kind and length the prompt in training is."""

from __future__ import annotations

import pytest
import torch

from promptlimits.capacity.attempt import Attempt
from promptlimits.cli import live
from promptlimits.cli.live import LiveListener
from promptlimits.models.protocol import PromptKind
from promptlimits.tuning.loop import StepReport
from promptlimits.tuning.outcome import Outcome


def report(best: int, of: int = 1, right: float = 0.999) -> StepReport:
    return StepReport(
        step=7,
        exact=best,
        best_exact=best,
        pairs=of,
        loss_nats=0.5,
        tokens_right=right,
        seconds=0.1,
    )


def test_lines_name_the_kind_and_a_text_shows_its_tokens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PLAIN_LINE_SECONDS", 0.0)
    with LiveListener() as listener:
        listener.step(PromptKind.PREFIX, 2, report(0))
        listener.step(PromptKind.SOFT, 2, report(3, of=8))
    out, err = capsys.readouterr()
    assert out == ""
    said = [" ".join(line.split()) for line in err.splitlines()]
    assert said == [
        "prefix P=2 training for 1 pair, step 7, loss 0.500, 99% of tokens right, exact 0 of 1",
        "soft P=2 training for 8 pairs, step 7, loss 0.500, 99% of tokens right, exact 3 of 8",
    ]


def test_what_is_found_with_one_kind_is_not_said_of_the_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with LiveListener() as listener:
        listener.step(PromptKind.SOFT, 1, report(5, of=8))
        monkeypatch.setattr(live, "FIRST_WORD_SECONDS", 0.0)
        listener.step(PromptKind.PREFIX, 1, report(1, of=8))
    said = " ".join(capsys.readouterr().err.split())
    assert "5 pairs exact with soft P=1; 1 pair exact with prefix P=1 in training" in said


def test_an_attempt_names_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveListener() as listener:
        listener.attempted(
            PromptKind.PREFIX,
            4,
            Attempt(
                pairs=8,
                outcome=Outcome.STALLED,
                held=(0, 2),
                prompt=torch.zeros(4, 2),
                steps=9,
                seconds=1.0,
                seed=0,
            ),
        )
    said = " ".join(capsys.readouterr().err.split())
    assert said == "prefix P=4: 2 of 8 pairs exact after 9 steps, 1 s (stalled)"
