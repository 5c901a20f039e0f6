"""Layers, queries and targets of any size: a result or one line, and no warning of numpy."""

import contextlib
import math

import numpy as np
import pytest

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lab.one_layer.error_floor import preimages
from promptlimits.lab.one_layer.oracle.certificate import certify_oracle
from promptlimits.lab.one_layer.oracle.value import certify_value, oracle_value
from promptlimits.lab.one_layer.realise import train_prompt
from promptlimits.lab.one_layer.setting import shared_query
from promptlimits.nets.paper.weights import HeadWeights, LayerWeights, random_weights


def drawn(seed, widest):
    """One layer with every array at a scale of its own."""
    generator = np.random.default_rng(seed)
    plain = random_weights(
        dim=3, heads=1 + seed % 2, head_dim=2, hidden=2, layers=1, generator=generator, masked=False
    ).layers[0]

    def scaled(array):
        return array * 10.0 ** generator.uniform(-widest, widest)

    layer = LayerWeights(
        heads=tuple(
            HeadWeights(
                query=scaled(head.query),
                key=scaled(head.key),
                value=scaled(head.value),
                output=scaled(head.output),
            )
            for head in plain.heads
        ),
        w1=scaled(plain.w1),
        b1=scaled(plain.b1),
        w2=scaled(plain.w2),
        b2=scaled(plain.b2),
    )
    tokens = scaled(generator.standard_normal((3, 3)))
    setting = shared_query(layer, tokens[0], [tokens[1], tokens[2]])
    return setting, scaled(generator.standard_normal((2, 3))), generator


@pytest.mark.parametrize("widest", [0.5, 30.0, 90.0, 300.0])
@pytest.mark.parametrize("seed", range(12))
def test_any_scale_ends_in_a_result_or_one_line(seed, widest):
    """Warnings are errors here, as everywhere in these tests."""
    try:
        setting, targets, generator = drawn(seed, widest)
    except UserError:
        assert widest > 1
        return
    for objective in ("sum of squares", "largest error"):
        try:
            value = oracle_value(setting, targets, objective=objective, generator=generator)
            proof = certify_value(setting, targets, value, most_boxes=20)
        except (UserError, RunFailed):
            assert widest > 1
            continue
        assert math.isfinite(value.found)
        assert proof.lower >= 0
        assert float(proof.lower) <= value.found * (1 + 1e-9)
    for act in (
        lambda: train_prompt(setting, targets, 2, generator, starts=1, steps=5),
        lambda: preimages(setting.layer, setting.token, targets),
    ):
        with contextlib.suppress(UserError, RunFailed):
            act()


def test_weighted_targets_beyond_doubles_are_one_line():
    setting, targets, _ = drawn(0, 1.0)
    with pytest.raises(UserError, match="targets times roots of their weights must be at most"):
        certify_oracle(setting, targets * 1e99, found=1.0, scale=np.full(2, 1e99))
