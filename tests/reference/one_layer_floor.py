"""Slow twin of `lab.one_layer.error_floor`: Theorem 5 written straight from its statement."""

from fractions import Fraction

import numpy as np


def floor_by_hand(setting, targets, weights):
    """The tail of squared singular values of pi U diag(sqrt w), in floats."""
    known = []
    for query in setting.queries:
        last = query[:, -1]
        for head in setting.layer.heads:
            scores = np.array(
                [float((head.key @ token) @ (head.query @ last)) for token in query.T]
            )
            shares = np.exp(scores - scores.max())
            known.append(head.output @ head.value @ query @ (shares / shares.sum()))
    columns = np.stack(known, axis=1)
    projection = np.eye(len(columns)) - columns @ np.linalg.pinv(columns)
    singular = np.linalg.svd(projection @ targets.T @ np.diag(np.sqrt(weights)), compute_uv=False)
    return float((singular[len(setting.layer.heads) :] ** 2).sum())


def orthogonal_floor(squared_lengths, heads):
    """The floor's square for offsets orthogonal to each other and to E, in closed form."""
    ordered = sorted((Fraction(square) for square in squared_lengths), reverse=True)
    best, inverses = Fraction(0), Fraction(0)
    for count, square in enumerate(ordered, start=1):
        inverses += 1 / square
        best = max(best, (count - heads) / inverses)
    return best
