"""Silence around calls into transformers: no progress bars, no log lines, no warnings.

What a user must know is checked by this package and raised as its own error.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging as transformers_logging


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers and huggingface_hub; restore both afterwards."""
    sink = io.StringIO()
    verbosity = transformers_logging.get_verbosity()
    transformers_bars = transformers_logging.is_progress_bar_enabled()
    hub_bars_off = are_progress_bars_disabled()
    hub_logger = logging.getLogger("huggingface_hub")
    hub_level = hub_logger.level
    transformers_logging.set_verbosity(logging.CRITICAL)
    hub_logger.setLevel(logging.CRITICAL)
    # Turns off the bars of both libraries.
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        # The GGUF reader's bar obeys no switch: only a redirected stream keeps it quiet.
        with warnings.catch_warnings(), redirect_stdout(sink), redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logger.setLevel(hub_level)
        if transformers_bars:
            transformers_logging.enable_progress_bar()
        if hub_bars_off:
            disable_progress_bars()
        else:
            enable_progress_bars()
