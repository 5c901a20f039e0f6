"""What training asks of the device that it runs on, in one place.

A step waits for the device once: for the few numbers by which problems end and are reported. What
it sends there goes many steps at once and without waiting. Where a device works through a queue of
its own (CUDA), the next step is in the queue before those numbers are read, so that the device
does not wait for the host either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Wait: TypeAlias = Callable[[], object]
"""Returns once the device has done what it was asked for up to a moment."""


def has_queue(device: torch.device) -> bool:
    """Whether a device works through its own queue while the host goes on."""
    return device.type == "cuda"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's in a device's memory, without waiting until it is there."""
    return tensor.to(device, non_blocking=has_queue(device))


class Fetched:
    """A matrix on its way to the host."""

    def __init__(self, matrix: Tensor) -> None:
        queued = has_queue(matrix.device)
        self._matrix = matrix.to("cpu", non_blocking=True) if queued else matrix
        self._wait = queue_mark(matrix.device) if queued else None

    def rows(self) -> list[list[float]]:
        """Its rows; waits until they are there."""
        if self._wait is not None:
            self._wait()
        found: list[list[float]] = self._matrix.tolist()
        return found


def queue_mark(device: torch.device) -> Wait:
    """A mark at the end of the device's queue, to wait for."""
    wait: Wait = torch.cuda.current_stream(device).record_event().synchronize
    return wait
