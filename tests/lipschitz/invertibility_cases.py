"""Transformers whose certificates are put to the test."""

import math
from fractions import Fraction

import numpy as np
from tests.reference.layers import attention_only

from promptlimits.nets.paper.weights import (
    HeadWeights,
    TransformerWeights,
    random_weights,
)


def linear_layer(value, score=0.0):
    """One head with W_o W_v = `value`, W_k^T W_q = `score` I, and no MLP."""
    dim = len(value)
    root = math.sqrt(score)
    head = HeadWeights(
        query=root * np.eye(dim), key=root * np.eye(dim), value=value, output=np.eye(dim)
    )
    return attention_only(head)


def stack(*layers, masked=False):
    return TransformerWeights(layers=layers, masked=masked)


def turned(degrees):
    """R - I for a rotation R of the plane."""
    angle = math.radians(degrees)
    return np.array(
        [[math.cos(angle) - 1, -math.sin(angle)], [math.sin(angle), math.cos(angle) - 1]]
    )


def random_case(seed, *, layers=2, masked=False, scale=0.3, dim=4):
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
