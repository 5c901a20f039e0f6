"""Transformers whose certificates are put to the test."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from tests.reference.layers import attention_only

from promptlimits.nets.paper.weights import (
    HeadWeights,
    LayerWeights,
    TransformerWeights,
    random_weights,
)


def linear_layer(value: np.ndarray, score: float = 0.0) -> LayerWeights:
    """One head with W_o W_v = `value`, W_k^T W_q = `score` I, and no MLP."""
    dim = len(value)
    root = math.sqrt(score)
    head = HeadWeights(
        query=root * np.eye(dim), key=root * np.eye(dim), value=value, output=np.eye(dim)
    )
    return attention_only(head)


def stack(*layers: LayerWeights, masked: bool = False) -> TransformerWeights:
    return TransformerWeights(layers=layers, masked=masked)


def turned(degrees: float) -> np.ndarray:
    """R - I for a rotation R of the plane."""
    angle = math.radians(degrees)
    return np.array(
        [[math.cos(angle) - 1, -math.sin(angle)], [math.sin(angle), math.cos(angle) - 1]]
    )


def random_case(
    seed: int, *, layers: int = 2, masked: bool = False, scale: float = 0.3, dim: int = 4
) -> TransformerWeights:
    return random_weights(
        dim=dim,
        heads=2,
        head_dim=3,
        hidden=5,
        layers=layers,
        generator=np.random.default_rng(seed),
        masked=masked,
        scale=scale,
        biases=True,
    )


ONE = Fraction(1)
