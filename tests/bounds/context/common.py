"""What the tests of these theorems share."""

import numpy as np

from promptlimits.base.exact import grid_value, log10_up


def nats(theorem):
    """log K."""
    return float(grid_value(theorem.value()["log_threshold"]))


def decades(theorem):
    """log10 K, rounded up."""
    return log10_up(theorem.value()["log_threshold"])


def ball(generator, d, n, r=1.0):
    """Columns drawn uniformly from the r-ball."""
    x = generator.normal(size=(d, n))
    return r * x / np.linalg.norm(x, axis=0) * generator.uniform(size=n) ** (1 / d)
