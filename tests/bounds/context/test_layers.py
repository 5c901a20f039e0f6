"""The last tokens, and long prompts that wash a query out: twins, laws, and searched attacks."""

import math
from fractions import Fraction

import numpy as np
import pytest
from tests.bounds.context.common import ball, decades, nats
from tests.reference import context_twin
from tests.reference.plain_transformer import PlainLayer, run

from promptlimits.base.errors import UserError
from promptlimits.base.exact import grid_value
from promptlimits.bounds.context.last_tokens import LastTokensCapacity
from promptlimits.bounds.context.layers import (
    LayerConstants,
    Washout,
    amplifications,
    washed_out_from,
)


def layers(*limits):
    return tuple(
        LayerConstants(radius=Fraction(r), mlp_lipschitz=mlp, heads=heads)
        for r, mlp, heads in limits
    )


TABLE_2C = [
    (64, 1, "1", "1", 3.81),
    (64, 1, "1", "1/4", 2.46),
    (64, 2, "1", "1", 5.63),
    (64, 6, "1", "1/2", 9.13),
]


@pytest.mark.parametrize(("d", "depth", "v", "a", "expected"), TABLE_2C)
def test_the_numbers_of_theorem_2c(d, depth, v, a, expected):
    stack = layers(*[(1, 1, [(v, a)])] * depth)
    found = LastTokensCapacity(dim=d, layers=stack, eps=Fraction(1, 100))
    assert decades(found) == pytest.approx(expected, abs=0.01)
    plain = [(float(x.radius), 1.0, [(float(Fraction(v)), float(Fraction(a)))]) for x in stack]
    twin = context_twin.threshold_2c(d, plain, 0.01, 1, 1.0, [float(p) for p in found.parts])
    assert nats(found) == pytest.approx(math.log(twin), rel=1e-9)
    assert found.log_share(math.ceil(twin) + 1) <= 0
    assert found.log_share(math.floor(twin)) > 0


def test_theorem_2c_says_that_more_than_one_layer_needs_a_mask():
    stack = layers((1, 1, [(1, 1)]))
    one = LastTokensCapacity(dim=8, layers=stack, eps=Fraction(1, 10))
    assert "a transformer of one layer" in one.claim(one.value())
    two = LastTokensCapacity(dim=8, layers=stack * 2, eps=Fraction(1, 10))
    assert "a masked transformer of 2 layers" in two.claim(two.value())
    more = LastTokensCapacity(dim=8, layers=stack, eps=Fraction(1, 10), tokens=4)
    assert nats(more) < nats(one)


def test_sampled_contexts_stay_within_the_sampling_lemma():
    """The best of few draws is far inside 2 r ||V|| e^(2 ||A|| r^2)/sqrt(n), for many queries."""
    generator = np.random.default_rng(1)
    for d, n in ((1, 8), (4, 32), (20, 32)):
        prompt, queries = ball(generator, d, 400), ball(generator, d, 50)
        value, score = (m / np.linalg.norm(m, 2) for m in generator.normal(size=(2, d, d)))
        layer = PlainLayer(heads=((value, score),), w1=np.zeros((1, d)), w2=np.zeros((d, 1)))

        def errors(chosen, prompt=prompt, queries=queries, layer=layer):
            return max(
                float(
                    np.linalg.norm(
                        layer.attention(x, prompt, np.ones(prompt.shape[1]))
                        - layer.attention(x, chosen, np.ones(chosen.shape[1]))
                    )
                )
                for x in queries.T
            )

        best = min(errors(prompt[:, generator.integers(400, size=n)]) for _ in range(5))
        assert best <= 2 * math.exp(2) / math.sqrt(n)


def random_layer(generator, d, steep):
    def unit(rows, columns):
        m = generator.normal(size=(rows, columns))
        return m / np.linalg.norm(m, 2)

    heads = tuple((0.7 * unit(d, d), steep * unit(d, d)) for _ in range(2))
    return PlainLayer(heads=heads, w1=unit(2 * d, d), w2=0.4 * unit(d, 2 * d))


def limits(stack):
    found, radius = [], Fraction(1)
    for layer in stack:
        heads = tuple(
            (
                Fraction(np.linalg.norm(v, 2) * (1 + 1e-12)),
                Fraction(np.linalg.norm(a, 2) * (1 + 1e-12)),
            )
            for v, a in layer.heads
        )
        mlp = Fraction(1 + np.linalg.norm(layer.w1, 2) * np.linalg.norm(layer.w2, 2) + 1e-12)
        found.append(LayerConstants(radius=radius, mlp_lipschitz=mlp, heads=heads))
        radius = found[-1].next_radius()
    return tuple(found)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nothing_found_exceeds_theorem_w(depth, masked):
    """Random and searched queries and prompts; the radii are those met on the way."""
    generator = np.random.default_rng(depth)
    d, m = 3, 3
    for prompt_tokens in (1, 8, 64):
        stack = [random_layer(generator, d, 0.6 / (1 + place)) for place in range(depth)]
        constants = limits(stack)
        twin = [
            (float(c.radius), float(c.mlp_lipschitz), [(float(v), float(a)) for v, a in c.heads])
            for c in constants
        ]
        found = Washout(layers=constants, query_tokens=m, prompt_tokens=prompt_tokens)
        log_difference = float(grid_value(found.value()["log_difference"]))
        expected = context_twin.washout(twin, m, prompt_tokens)
        assert log_difference == pytest.approx(math.log(expected), rel=1e-9)
        best = 0.0
        state = [ball(generator, d, prompt_tokens), ball(generator, d, m), ball(generator, d, m)]
        for step in range(25):
            tried = [x + 0.4 * generator.normal(size=x.shape) for x in state] if step else state
            tried = [x / np.maximum(1, np.linalg.norm(x, axis=0)) for x in tried]
            tried[2][:, -1] = tried[1][:, -1]
            ends = [run(stack, np.hstack([tried[0], query]), masked=masked) for query in tried[1:]]
            for constant, *tokens in zip(constants, *ends, strict=False):
                for token in tokens:
                    assert np.linalg.norm(token, axis=0).max() <= float(constant.radius) + 1e-9
            gap = float(np.linalg.norm(ends[0][-1][:, -1] - ends[1][-1][:, -1]))
            if gap > best:
                best, state = gap, tried
        assert 0 < best <= math.exp(log_difference)


def test_washout_laws():
    stack = layers((1, "3/2", [("1/2", "1/2"), (1, "1/4")]), (4, 1, [("1/10", "1/100")]))
    assert amplifications(stack)[1] == 1
    assert amplifications(stack)[0] == Fraction(3, 2) * (1 + stack[1].attention_lipschitz)
    logs = [
        Washout(layers=stack, query_tokens=4, prompt_tokens=10**p).value()["log_difference"] / 2**96
        for p in range(0, 12, 2)
    ]
    assert logs == sorted(logs, reverse=True)
    assert logs[-2] - logs[-1] == pytest.approx(math.log(100), rel=1e-4)  # like 1/m_p
    length = washed_out_from(layers=stack, query_tokens=4, gap=1, eps=Fraction(1, 10))
    for m_p, kept in ((length, False), (length - 1, True)):
        error = Washout(layers=stack, query_tokens=4, prompt_tokens=m_p).least_error(1)
        assert (error is None or error < 0.1) is kept
    short = Washout(layers=stack, query_tokens=4, prompt_tokens=1)
    assert short.least_error(1) is None
    far = layers((1, 1, [(1, 400)]))
    assert washed_out_from(layers=far, query_tokens=2, gap=1) > 10**340
    with pytest.raises(UserError, match="the same query"):
        Washout(layers=stack, query_tokens=1, prompt_tokens=4)
    with pytest.raises(UserError, match="half the gap"):
        washed_out_from(layers=stack, query_tokens=2, gap=1, eps=1)


@pytest.mark.parametrize(
    "change", [None, {}, {"radius": "x"}, {"heads": []}, {"heads": ["11"]}, {"more": "1"}]
)
def test_bad_layers_are_refused(change):
    good = {"radius": "1", "mlp_lipschitz": "1", "heads": [["1", "1"]]}
    with pytest.raises(UserError):
        Washout(layers=[good | change if change else change], query_tokens=2, prompt_tokens=1)


def test_layers_are_read_as_they_are_written():
    good = layers((1, "3/2", [("1/2", "1/2")]))[0]
    record = {"radius": "1", "mlp_lipschitz": "3/2", "heads": [["1/2", "1/2"]]}
    assert good.model_dump(mode="json") == record
    assert LayerConstants.model_validate(record) == good
    assert Washout(layers=[record], query_tokens=2, prompt_tokens=1).layers == (good,)


@pytest.mark.parametrize("radius", ["1e2000", "1e-2000", "1e101", "1e-101"])
def test_radii_beyond_floats_are_refused(radius):
    with pytest.raises(UserError, match="radius of a layer must be between 1e-100 and 1e100"):
        LayerConstants(radius=radius, mlp_lipschitz=1, heads=((1, 1),))
    near = layers((1, 1, [(1, 1)]))
    far = Fraction(radius)
    with pytest.raises(UserError, match="target_radius must be between 1e-100 and 1e100"):
        LastTokensCapacity(dim=8, layers=near, eps=far / 9, target_radius=far)


def test_small_and_large_radii_serve():
    """Scaling tokens by c and A by 1/c^2 changes nothing."""
    one = LastTokensCapacity(dim=8, layers=layers((1, 1, [(1, 1)])), eps=Fraction(1, 10))
    for power in (-99, 99):
        scale = Fraction(10) ** power
        stack = layers((scale, 1, [(1, 1 / scale**2)]))
        found = LastTokensCapacity(dim=8, layers=stack, eps=scale / 10)
        assert nats(found) == pytest.approx(nats(one), rel=1e-3)


def test_parts_leave_room_for_the_error():
    sizes = {"dim": 8, "layers": layers((1, 1, [(1, 1)])), "eps": Fraction(1, 10)}
    with pytest.raises(UserError, match="parts must leave eps and all of them together below"):
        LastTokensCapacity(**sizes, parts=("0.5", "0.3", "0.1"))
    with pytest.raises(UserError, match="eps must be below the target radius"):
        LastTokensCapacity(**(sizes | {"eps": 1}))
