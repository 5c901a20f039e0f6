"""The live display says of what kind and length the prompt in training is."""

import os
import re
import subprocess
import sys
import time

import pytest
import torch

from promptlimits.capacity.search.attempt import Attempt
from promptlimits.capacity.train.problem import Outcome, StepReport
from promptlimits.capacity.train.state import TrainingState
from promptlimits.cli import live
from promptlimits.cli.live import LiveListener
from promptlimits.nets.protocol import PromptKind


def report(best, of=1, right=0.999):
    return StepReport(
        step=7,
        exact=best,
        best_exact=best,
        pairs=of,
        loss_nats=0.5,
        tokens_right=right,
        seconds=0.1,
    )


def test_lines_name_the_kind_and_a_text_shows_its_tokens(capsys, monkeypatch):
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


def test_what_is_found_with_one_kind_is_not_said_of_the_other(capsys, monkeypatch):
    with LiveListener() as listener:
        listener.step(PromptKind.SOFT, 1, report(5, of=8))
        monkeypatch.setattr(live, "FIRST_WORD_SECONDS", 0.0)
        listener.step(PromptKind.PREFIX, 1, report(1, of=8))
    said = " ".join(capsys.readouterr().err.split())
    assert "5 pairs exact with soft P=1; 1 pair exact with prefix P=1 in training" in said


def test_an_attempt_names_its_kind(capsys):
    with LiveListener() as listener:
        listener.attempted(
            PromptKind.PREFIX,
            4,
            Attempt(
                size=8,
                units="pairs",
                outcome=Outcome.STALLED,
                held=(0, 2),
                state=TrainingState.start(torch.zeros(4, 2), 8),
                steps=9,
                seconds=1.0,
                seed=0,
            ),
        )
    said = " ".join(capsys.readouterr().err.split())
    assert said == "prefix P=4: 2 of 8 pairs exact after 9 steps, 1 s (stalled)"


WATCHED = """
import math
import time
from promptlimits.cli.live import LiveListener
from promptlimits.nets.protocol import PromptKind
from promptlimits.capacity.train.problem import StepReport
with LiveListener() as listener:
    listener.ends_at(time.monotonic() + 187.9)
    listener.step(
        PromptKind.PREFIX, 12,
        StepReport(step=7, exact=3, best_exact=120, pairs=246, loss_nats=0.5,
                   tokens_right=0.99, seconds=0.1),
    )
    time.sleep(0.3)
    listener.stage("decoding the best prompt with stock tools in a fresh process", total=98)
    listener.ends_at(math.inf)
    listener.advanced(41)
    time.sleep(0.3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")
@pytest.mark.slow  # a process that imports torch
def test_a_narrow_terminal_keeps_the_counts_and_the_time_left():
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 45, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [sys.executable, "-c", WATCHED], stderr=theirs, env=environment | {"TERM": "xterm"}
    ) as process:
        os.close(theirs)
        written = _all_of(ours)
    assert process.returncode == 0
    frames = [
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).strip("\n")
        for frame in re.split(r"[\r\n]+", written)
    ]
    assert all(len(frame) <= 45 for frame in frames), frames
    assert any(re.fullmatch(r"prefix P=12 train.*… 120/246 3:07 left", frame) for frame in frames)
    assert any(re.fullmatch(r"decoding the best.*… 41/98 0:00", frame) for frame in frames), frames


def _all_of(descriptor):
    """What was written to a terminal, to its end, which Linux reports as an error."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 4096)
        except OSError:
            part = b""
        if not part:
            os.close(descriptor)
            return b"".join(parts).decode()
        parts.append(part)


def test_plain_lines_tell_the_time_left_and_that_decoding_moves(capsys, monkeypatch):
    monkeypatch.setattr(live, "_PLAIN_LINE_SECONDS", 0.0)
    with LiveListener() as listener:
        listener.ends_at(time.monotonic() + 3725.5)
        listener.step(PromptKind.SOFT, 2, report(3, of=8))
        listener.stage("decoding", total=98)
        listener.advanced(41)
    said = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert said[0].endswith("exact 3 of 8, 1:02:05 left")
    assert said[1:] == ["... decoding", "decoding: 41 of 98, 1:02:05 left"]
