"""Prompts of any length: tables, twins, laws, and small instances of the lemmas."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from tests.reference import context_twin
from tests.reference.plain_transformer import Array, PlainLayer, run

from promptlimits.base.errors import UserError
from promptlimits.theory.context_published import published_threshold
from promptlimits.theory.covering import greedy_packing
from promptlimits.theory.last_tokens_capacity import last_tokens_capacity
from promptlimits.theory.layer_constants import LayerConstants, amplifications
from promptlimits.theory.washout import washed_out_from, washout
from promptlimits.theory.wasserstein import measure_family
from promptlimits.theory.whole_output_capacity import short_prompt_capacity, whole_output_capacity

CASES = {  # published, with its 3 put right, Theorem 2a with kappa = 1, with Rogers' cover
    (2, 10, 1, "1/100", 1): (3.57, 5.48, 6.07, None),
    (4, 10, 1, "1/100", 2): (6.45, 10.27, 9.66, None),
    (16, 10, 1, "1/100", 2): (22.06, 37.33, 30.2, 27.65),
    (64, 100, 1, "1/100", 2): (148.61, 209.68, 172.78, 156.4),
    (64, 100, 10, "1/10", 2): (212.61, 273.68, 172.78, 156.4),
    (768, 1000, 30, "3/10", 2): (3671.05, 4403.91, 2781.2, 2554.1),
}


def given(case: tuple[int, int, Any, str, int]) -> dict[str, Any]:
    d, lipschitz, radius, eps, order = case
    return {
        "dim": d,
        "lipschitz": lipschitz,
        "radius": radius,
        "eps": Fraction(eps),
        "order": order,
    }


@pytest.mark.parametrize("case", CASES)
def test_the_table_of_theorem_2a(case: tuple[int, int, int, str, int]) -> None:
    published, right, ours, rogers = CASES[case]
    sizes = given(case)
    assert published_threshold(**sizes).upper_log10() == pytest.approx(published, abs=0.01)
    mended = published_threshold(**sizes, threes_put_right=True)
    assert mended.upper_log10() == pytest.approx(right, abs=0.01)
    assert mended.assumptions[0].holds is False
    plain = whole_output_capacity(**sizes, largest_list=1)
    assert ours - 0.15 < plain.threshold.upper_log10() <= ours
    if rogers is not None:
        cited = whole_output_capacity(**sizes, largest_list=1, cover="rogers").threshold
        assert rogers - 0.15 < cited.upper_log10() <= rogers


@pytest.mark.parametrize(
    ("case", "gain"), [((16, 10, 1, "1/100", 2), 1), ((64, 100, 1, "1/100", 2), 7.7)]
)
def test_lists_gain_about_half_the_dimension_in_bits(case: Any, gain: float) -> None:
    with_lists = whole_output_capacity(**given(case))
    without = whole_output_capacity(**given(case), largest_list=1)
    assert with_lists.choice.list_size == case[0] // 2
    assert with_lists.threshold.upper_log10() < without.threshold.upper_log10() - gain


def test_the_published_theorem_says_no_target_at_all() -> None:
    """At a small radius its K is below 1, although tau = identity makes every target for k = 1."""
    small = given((4, 10, Fraction(1, 100), "1/10000", 2))
    assert published_threshold(**small).upper_log10() == pytest.approx(-1.55, abs=0.01)
    with pytest.raises(UserError, match="no threshold"):
        published_threshold(**given((1, 10, 1, "1/10", 2)), constant=10**14)


@pytest.mark.parametrize("case", list(CASES)[:3])
def test_theorem_2a_and_its_twin(case: Any) -> None:
    found = whole_output_capacity(**given(case))
    chosen = found.choice
    d, lipschitz, radius, eps, order = case
    twin = context_twin.threshold_2a(
        d,
        lipschitz,
        radius,
        float(Fraction(eps)),
        order,
        float(found.delta),
        float(chosen.cover_share),
        chosen.alphabet,
        float(chosen.theta),
        chosen.list_size,
    )
    assert found.threshold.upper_nats() == pytest.approx(math.log(twin), rel=1e-9)
    threshold = math.ceil(twin * (1 + 1e-12)) + 1
    assert found.share_accessible(threshold).proves_at_most(1)
    assert not found.share_accessible(math.floor(twin * (1 - 1e-6))).proves_at_most(1)


@pytest.mark.parametrize(
    ("case", "tokens"),
    [
        ((2, 10, 1, "1/100", 1), 4),
        ((4, 2, 1, "1/5", 2), 1),
        ((4, Fraction(1, 9), 1, "1/100", 2), 3),
    ],
)
def test_theorem_2b_and_its_twin(case: Any, tokens: int) -> None:
    found = short_prompt_capacity(**given(case), tokens=tokens)
    d, lipschitz, radius, eps, order = case
    twin = (
        context_twin.threshold_2b(
            d,
            float(lipschitz),
            radius,
            float(Fraction(eps)),
            order,
            float(found.delta),
            found.choice.alphabet,
            float(found.choice.theta),
            tokens,
            2.0 * radius,
        )
        if lipschitz == Fraction(1, 9)
        else None
    )
    if twin is not None:
        assert found.threshold.upper_nats() == pytest.approx(math.log(twin), rel=1e-9, abs=1e-12)
    whole = whole_output_capacity(**given(case))
    assert found.threshold.log < whole.threshold.log


def test_two_pairs_are_too_many_in_moderate_dimension() -> None:
    found = short_prompt_capacity(**given((64, 100, 1, "1/100", 2)), tokens=16)
    assert found.threshold.proves_at_most(2)
    assert found.share_accessible(2).proves_at_most(Fraction(1, 10**100))


@pytest.mark.parametrize("case", [(4, 10, 1, "1/100", 2), (16, 3, 1, "1/50", 1)])
def test_scale_invariance_and_monotonicity(case: Any) -> None:
    sizes = given(case)
    here = whole_output_capacity(**sizes)
    scaled = sizes | {"radius": Fraction(7, 3), "eps": sizes["eps"] * Fraction(7, 3)}
    there = whole_output_capacity(**scaled)
    assert there.choice == here.choice
    assert abs(float(there.threshold.log - here.threshold.log)) < 1e-20
    chosen = {"choice": here.choice}
    more = whole_output_capacity(**(sizes | {"lipschitz": 2 * sizes["lipschitz"]}), **chosen)
    assert more.threshold.log > here.threshold.log
    coarser = whole_output_capacity(**(sizes | {"eps": sizes["eps"] / 2}), **chosen)
    assert coarser.threshold.log <= here.threshold.log


def ball(generator: np.random.Generator, d: int, n: int, r: float = 1.0) -> Array:
    """Columns drawn uniformly from the r-ball."""
    x = generator.normal(size=(d, n))
    return r * x / np.linalg.norm(x, axis=0) * generator.uniform(size=n) ** (1 / d)


def transport(one: Array, other: Array, q: float) -> float:
    """W_q between uniform measures on as many points (rows)."""
    cost = np.linalg.norm(one[:, None] - other[None], axis=2) ** q
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean() ** (1 / q))


@pytest.mark.parametrize(("q", "kappa"), [(1.0, 1), (2.0, 1), (2.0, 2)])
def test_few_words_lie_in_a_ball(q: float, kappa: int) -> None:
    """Lemma C_out, by exact transport to adversarial centres: other words, and midpoints."""
    generator = np.random.default_rng(5)
    d, size, blocks, theta = 2, 4, 4, Fraction(1, 4)
    points = ball(generator, d, 4000).T
    spacing = 0.3
    points = points[greedy_packing(points, spacing)]
    assert len(points) >= (1 / spacing) ** d
    assert len(points) >= size * blocks
    rho = spacing * float(theta) ** (1 / q) / math.sqrt(2 * (kappa + 1) / kappa)
    words = list(itertools.product(range(size), repeat=blocks))
    measures = [points[[size * i + c for i, c in enumerate(word)]] for word in words]
    kept = 1 - float(theta)
    rate = kept * math.log(kept * size / kappa)
    rate += float(theta) * math.log(float(theta) * size / (size - kappa))
    most = size**blocks * math.exp(-blocks * rate)
    centres = measures[::60] + [
        (measures[int(a)] + measures[int(b)]) / 2
        for a, b in generator.integers(len(words), size=(10, 2))
    ]
    for centre in centres:
        near = sum(transport(measure, centre, q) <= rho for measure in measures)
        assert near <= most
    if kappa == 1:
        a, b = measures[0], measures[-1]
        assert transport(a, b, q) > 2 * rho


def test_a_family_needs_room() -> None:
    sizes: dict[str, Any] = {"dim": 2, "radius": 1, "order": 1, "theta": Fraction(1, 2)}
    family = measure_family(**sizes, ball=Fraction(1, 50), alphabet=4)
    assert family.blocks == math.ceil((50 / 2 / 2) ** 2) // 4
    with pytest.raises(UserError, match="alphabet must be at most"):
        measure_family(**sizes, ball=Fraction(1, 50), alphabet=400)
    with pytest.raises(UserError, match="the ball"):
        measure_family(**sizes, ball=1, alphabet=4)
    with pytest.raises(UserError, match="theta"):
        measure_family(**sizes, ball=Fraction(1, 50), alphabet=4, list_size=2)


def test_lemma_c_in_by_brute_force() -> None:
    """All contexts of short prompts over a grid of centres fall on few rounded weights."""
    centres, query_tokens, q, radius = 3, 2, 1.0, 1.0
    ew = 0.5
    tau = (ew / (2 * radius)) ** q
    parts = math.ceil((centres + 1) / (4 * tau))
    seen = set()
    for length in range(16):
        for counts in itertools.product(range(length + 1), repeat=centres):
            if sum(counts) != length:
                continue
            weights = np.array([*counts, query_tokens]) / (length + query_tokens)
            whole = np.floor(parts * weights + 1e-12)
            rest = parts * weights - whole
            for place in np.argsort(-rest)[: round(parts - whole.sum())]:
                whole[place] += 1
            assert np.abs(whole / parts - weights).sum() / 2 <= tau + 1e-12
            seen.add(tuple(whole))
    bound = (centres + 1) * math.log(math.e * (1 + (2 * radius / ew) ** q / 4))
    assert math.log(len(seen)) <= math.log(math.comb(parts + centres, centres)) <= bound


def layers(*limits: tuple[Any, Any, list[tuple[Any, Any]]]) -> list[LayerConstants]:
    return [
        LayerConstants(
            radius=Fraction(r),
            mlp_lipschitz=Fraction(mlp),
            heads=tuple((Fraction(v), Fraction(a)) for v, a in heads),
        )
        for r, mlp, heads in limits
    ]


TABLE_2C = [
    (64, 1, "1", "1", 3.81),
    (64, 1, "1", "1/4", 2.46),
    (64, 2, "1", "1", 5.63),
    (64, 6, "1", "1/2", 9.13),
]


@pytest.mark.parametrize(("d", "depth", "v", "a", "expected"), TABLE_2C)
def test_the_numbers_of_theorem_2c(d: int, depth: int, v: str, a: str, expected: float) -> None:
    stack = layers(*[(1, 1, [(v, a)])] * depth)
    found = last_tokens_capacity(dim=d, layers=stack, eps=Fraction(1, 100))
    assert found.threshold.upper_log10() == pytest.approx(expected, abs=0.01)
    plain = [(float(x.radius), 1.0, [(float(Fraction(v)), float(Fraction(a)))]) for x in stack]
    twin = context_twin.threshold_2c(d, plain, 0.01, 1, 1.0, [float(p) for p in found.parts])
    assert found.threshold.upper_nats() == pytest.approx(math.log(twin), rel=1e-9)
    assert found.share_accessible(math.ceil(twin) + 1).proves_at_most(1)
    assert not found.share_accessible(math.floor(twin)).proves_at_most(1)


def test_theorem_2c_needs_a_mask_beyond_one_layer() -> None:
    stack = layers((1, 1, [(1, 1)]))
    one = last_tokens_capacity(dim=8, layers=stack, eps=Fraction(1, 10), masked=False)
    assert one.threshold.proves_at_least(1) is False
    with pytest.raises(UserError, match="without a mask"):
        last_tokens_capacity(dim=8, layers=stack * 2, eps=Fraction(1, 10), masked=False)
    more = last_tokens_capacity(dim=8, layers=stack, eps=Fraction(1, 10), tokens=4)
    assert more.threshold.log < one.threshold.log


def test_sampled_contexts_stay_within_the_sampling_lemma() -> None:
    """The best of few draws is far inside 2 r ||V|| e^(2 ||A|| r^2)/sqrt(n), for many queries."""
    generator = np.random.default_rng(1)
    for d, n in ((1, 8), (4, 32), (20, 32)):
        prompt, queries = ball(generator, d, 400), ball(generator, d, 50)
        value, score = (m / np.linalg.norm(m, 2) for m in generator.normal(size=(2, d, d)))
        layer = PlainLayer(heads=((value, score),), w1=np.zeros((1, d)), w2=np.zeros((d, 1)))

        def errors(
            chosen: Array,
            prompt: Array = prompt,
            queries: Array = queries,
            layer: PlainLayer = layer,
        ) -> float:
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


def random_layer(generator: np.random.Generator, d: int, steep: float) -> PlainLayer:
    def unit(rows: int, columns: int) -> Array:
        m: Array = generator.normal(size=(rows, columns))
        return m / np.linalg.norm(m, 2)

    heads = tuple((0.7 * unit(d, d), steep * unit(d, d)) for _ in range(2))
    return PlainLayer(heads=heads, w1=unit(2 * d, d), w2=0.4 * unit(d, 2 * d))


def limits(stack: list[PlainLayer]) -> list[LayerConstants]:
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
    return found


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nothing_found_exceeds_theorem_w(depth: int, masked: bool) -> None:
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
        found = washout(layers=constants, query_tokens=m, prompt_tokens=prompt_tokens)
        expected = context_twin.washout(twin, m, prompt_tokens)
        assert found.difference.upper_nats() == pytest.approx(math.log(expected), rel=1e-9)
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
        assert 0 < best <= math.exp(found.difference.upper_nats())


def test_washout_laws() -> None:
    stack = layers((1, "3/2", [("1/2", "1/2"), (1, "1/4")]), (4, 1, [("1/10", "1/100")]))
    assert amplifications(stack)[1] == 1
    assert amplifications(stack)[0] == Fraction(3, 2) * (1 + stack[1].attention_lipschitz)
    logs = [
        float(washout(layers=stack, query_tokens=4, prompt_tokens=10**p).difference.log)
        for p in range(0, 12, 2)
    ]
    assert logs == sorted(logs, reverse=True)
    assert logs[-2] - logs[-1] == pytest.approx(math.log(100), rel=1e-4)  # like 1/m_p
    length = washed_out_from(layers=stack, query_tokens=4, gap=1, eps=Fraction(1, 10))
    for m_p, kept in ((length, False), (length - 1, True)):
        error = washout(layers=stack, query_tokens=4, prompt_tokens=m_p).least_error(1)
        assert error is None or error.proves_at_least(Fraction(1, 10)) is not kept
    far = layers((1, 1, [(1, 400)]))
    assert washed_out_from(layers=far, query_tokens=2, gap=1) > 10**340
    with pytest.raises(UserError, match="the same query"):
        washout(layers=stack, query_tokens=1, prompt_tokens=4)
    with pytest.raises(UserError, match="half the gap"):
        washed_out_from(layers=stack, query_tokens=2, gap=1, eps=1)


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"radius": "1"},
        {"radius": "x", "mlp_lipschitz": "1", "heads": [["1", "1"]]},
        {"radius": "1", "mlp_lipschitz": "1", "heads": []},
        {"radius": "1", "mlp_lipschitz": "1", "heads": ["11"]},
        {"radius": "1e99999", "mlp_lipschitz": "1", "heads": [["1", "1"]]},
        {"radius": "-1", "mlp_lipschitz": "1", "heads": [["1", "1"]]},
    ],
)
def test_bad_layers_are_refused(record: Any) -> None:
    with pytest.raises(UserError):
        LayerConstants.from_json(record)
    good = layers((1, "3/2", [("1/2", "1/2")]))[0]
    assert LayerConstants.from_json(good.to_json()) == good


@pytest.mark.parametrize("radius", ["1e4000", "1e-4000", "1e101", "1e-101"])
def test_radii_beyond_floats_are_refused(radius: str) -> None:
    far = LayerConstants.from_json({"radius": radius, "mlp_lipschitz": "1", "heads": [["1", "1"]]})
    near = layers((1, 1, [(1, 1)]))
    with pytest.raises(UserError, match="between 1e-100 and 1e100"):
        last_tokens_capacity(dim=8, layers=[far], eps=Fraction(1, 10), target_radius=1)
    with pytest.raises(UserError, match="between 1e-100 and 1e100"):
        washout(layers=[*near, far], query_tokens=2, prompt_tokens=1)
    with pytest.raises(UserError, match="target radius must be between"):
        last_tokens_capacity(dim=8, layers=near, eps=Fraction(radius) / 9, target_radius=far.radius)


def test_small_and_large_radii_serve() -> None:
    """Scaling tokens by c and A by 1/c^2 changes nothing."""
    expected = last_tokens_capacity(
        dim=8, layers=layers((1, 1, [(1, 1)])), eps=Fraction(1, 10)
    ).threshold.upper_nats()
    for power in (-99, 99):
        scale = Fraction(10) ** power
        stack = layers((scale, 1, [(1, 1 / scale**2)]))
        found = last_tokens_capacity(dim=8, layers=stack, eps=scale / 10)
        assert found.threshold.upper_nats() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("text", ["1_0", "١", " 1", "1 ", "+1", "-1", "1e", ".", "1/0", "0x1"])
def test_numbers_of_layers_are_read_in_one_form(text: str) -> None:
    with pytest.raises(UserError):
        LayerConstants.from_json({"radius": text, "mlp_lipschitz": "1", "heads": [["1", "1"]]})


def test_large_dimensions_have_room_for_the_weights() -> None:
    for dim in (8190, 8191, 10**6):
        found = whole_output_capacity(**given((dim, 10, 1, "1/100", 2)))
        assert found.choice.cover_share < 1
