"""What the tests of these theorems share."""

from __future__ import annotations

import numpy as np
from tests.reference.plain_transformer import Array

from promptlimits.base.exact import grid_value, log10_up
from promptlimits.bounds.core import Theorem


def nats(theorem: Theorem) -> float:
    """log K."""
    return float(grid_value(theorem.value()["log_threshold"]))


def decades(theorem: Theorem) -> float:
    """log10 K, rounded up."""
    return log10_up(theorem.value()["log_threshold"])


def ball(generator: np.random.Generator, d: int, n: int, r: float = 1.0) -> Array:
    """Columns drawn uniformly from the r-ball."""
    x = generator.normal(size=(d, n))
    return r * x / np.linalg.norm(x, axis=0) * generator.uniform(size=n) ** (1 / d)
