"""Inside nothing is said; afterwards everything is as it was."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator

import pytest
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from transformers.utils import logging as transformers_logging

from promptlimits.nets.load.network import quiet

hub = logging.getLogger("huggingface_hub")


def state() -> tuple[int, int, bool, bool]:
    return (
        transformers_logging.get_verbosity(),
        hub.level,
        transformers_logging.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
    )


@pytest.fixture(autouse=True)
def _unusual_levels() -> Iterator[None]:
    before = transformers_logging.get_verbosity(), hub.level
    transformers_logging.set_verbosity(logging.INFO)
    hub.setLevel(logging.DEBUG)
    yield
    transformers_logging.set_verbosity(before[0])
    hub.setLevel(before[1])


def test_everything_is_silent_inside(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        transformers_logging.get_logger("transformers").error("loud")
        hub.error("loud")
        warnings.warn("loud", stacklevel=1)
        print("loud")
        print("loud", file=sys.stderr)
        assert state() == (logging.CRITICAL, logging.CRITICAL, False, True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bars", [True, False])
def test_all_is_restored_even_after_an_error(bars: bool) -> None:
    if not bars:
        transformers_logging.disable_progress_bar()
    before = state()
    with pytest.raises(ValueError, match="inside"), quiet():
        raise ValueError("inside")
    assert state() == before
    assert before[2:] == (bars, not bars)
    transformers_logging.enable_progress_bar()
