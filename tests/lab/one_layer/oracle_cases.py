"""The layer whose errors are known exactly."""

import numpy as np
from tests.reference.layers import attention_only

from promptlimits.lab.one_layer.setting import shared_query
from promptlimits.nets.paper.weights import HeadWeights


def counterexample(heads):
    """The exact layer of erratum E13 whose errors are all 1 / sqrt(h + 1), and its prompt."""
    h, total = heads, 1e6
    dim = h * h + 2 * h + 1
    unit = np.eye(max(dim, 3 * h + 2))
    dim = len(unit)
    direction = np.append(np.ones(h), -1.0) / np.sqrt(h + 1)
    mu = np.full((h, h + 1), 0.001)
    mu[np.arange(h), np.arange(h)] = 0.5
    mu[:, h] = mu[:, :h].sum(axis=1)
    # Rows of mu are orthogonal to `direction`, so I - direction direction^T = Q mu.
    wanted = np.eye(h + 1) - np.outer(direction, direction)
    q = wanted @ np.linalg.pinv(mu)
    targets = np.stack([unit[1 + 2 * h + j] for j in range(h + 1)])
    head = [
        HeadWeights(
            query=unit[0][None],
            key=unit[1 + i][None],
            value=unit[1 + h + i][None],
            output=(targets.T @ q[:, i] * total / (total - h + 1))[:, None],
        )
        for i in range(h)
    ]
    contexts = [
        sum(np.log(total * (1 / mu[i, j] - 1) - 1) * unit[1 + i] for i in range(h))
        for j in range(h + 1)
    ]
    prompt = np.stack(
        [np.log(total - h + 1) * unit[1 + g] + unit[1 + h + g] for g in range(h)], axis=1
    )
    return shared_query(attention_only(*head), unit[0], contexts), targets, prompt
