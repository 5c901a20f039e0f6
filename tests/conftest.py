"""What every test gets: no network, fixed seeds, and a guard on torch's global state."""

from __future__ import annotations

import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

# Before anything imports huggingface_hub or matplotlib, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pytest
from hypothesis import settings

# The same examples on each run, and no deadline: machines are shared.
settings.register_profile("promptlimits", deadline=None, derandomize=True)
settings.load_profile("promptlimits")


@pytest.fixture(scope="session")
def repository():
    """The checkout that the tests run from."""
    return Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class TorchState:
    """Torch's global switches, which a test must leave as it found them."""

    default_dtype: str = "torch.float32"
    gradients: bool = True
    deterministic: bool = False
    mha_fast_path: bool = True
    threads: int


def torch_state():
    """The switches now, or None while torch is not imported: looking never imports it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return TorchState(
        default_dtype=str(torch.get_default_dtype()),
        gradients=torch.is_grad_enabled(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        mha_fast_path=torch.backends.mha.get_fastpath_enabled(),
        threads=torch.get_num_threads(),
    )


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heeded():
    """A shell starts what runs in the background deaf to Ctrl-C, and every process below it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _fixed_seeds():
    """Seed every global generator; code under test takes its own, this catches the rest."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global one is the point
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _torch_state_is_left_alone():
    """Fail the test that leaves one of torch's global switches changed."""
    before = torch_state()
    yield
    after = torch_state()
    if after is not None:
        # Torch was imported in the test itself: it must stand as torch starts.
        expected = before or TorchState(threads=after.threads)
        assert after == expected, "the test changed torch's global state"
