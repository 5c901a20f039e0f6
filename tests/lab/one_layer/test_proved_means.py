"""Means that are proved stay finite and true where scores are known badly."""

from __future__ import annotations

import numpy as np

from promptlimits.lab.one_layer.setting import proved_means, shared_query, statistics
from promptlimits.nets.paper.weights import random_weights


def test_scores_whose_rounding_overflows_still_give_shares_of_one() -> None:
    generator = np.random.default_rng(0)
    layer = random_weights(
        dim=4, heads=2, head_dim=2, hidden=0, layers=1, generator=generator, masked=False
    ).layers[0]
    tokens = generator.standard_normal((2, 4))
    for size in (1.0, 1e10, 1e20, 1e40):
        setting = shared_query(layer, size * tokens[0], [size * tokens[1]])
        found = statistics(setting, setting.queries[0])
        for place, proved in enumerate(proved_means(setting, setting.queries[0])):
            away = np.linalg.norm(proved.center[:, 0] - found.mean[place])
            assert away <= proved.radius <= 1e3 * size
