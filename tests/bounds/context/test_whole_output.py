"""Whole outputs: tables, twins, laws, and small instances of the lemmas."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from tests.bounds.context.common import ball, decades, nats
from tests.reference import context_twin

from promptlimits.base.errors import UserError
from promptlimits.base.exact import log10_up
from promptlimits.bounds.context.search import Case, best_choice
from promptlimits.bounds.context.whole_output import (
    MeasureFamily,
    ShortPromptCapacity,
    WholeOutputCapacity,
    published_log_threshold,
)
from promptlimits.bounds.covering import greedy_packing

CASES = {  # published, with its 3 put right, Theorem 2a with kappa = 1, with Rogers' cover
    (2, 10, 1, "1/100", 1): (3.57, 5.48, 6.07, None),
    (4, 10, 1, "1/100", 2): (6.45, 10.27, 9.66, None),
    (16, 10, 1, "1/100", 2): (22.06, 37.33, 30.2, 27.65),
    (64, 100, 1, "1/100", 2): (148.61, 209.68, 172.78, 156.4),
    (64, 100, 10, "1/10", 2): (212.61, 273.68, 172.78, 156.4),
    (768, 1000, 30, "3/10", 2): (3671.05, 4403.91, 2781.2, 2554.1),
}


def given(case):
    d, lipschitz, radius, eps, order = case
    return {
        "dim": d,
        "lipschitz": lipschitz,
        "radius": radius,
        "eps": Fraction(eps),
        "order": order,
    }


def codes(case, *, rogers=False):
    """The best choice without lists: kappa = 1."""
    d, lipschitz, radius, eps, order = case
    logs = (math.log(float(Fraction(x))) for x in (lipschitz, radius, eps))
    names = ("log_lipschitz", "log_radius", "log_eps")
    return best_choice(
        Case(
            dim=d, order=order, rogers=rogers, largest_list=1, **dict(zip(names, logs, strict=True))
        )
    )


@pytest.mark.parametrize("case", CASES)
def test_the_table_of_theorem_2a(case):
    published, right, ours, rogers = CASES[case]
    plain = WholeOutputCapacity(**given(case), choice=codes(case))
    assert log10_up(published_log_threshold(plain)) == pytest.approx(published, abs=0.01)
    mended = log10_up(published_log_threshold(plain, threes_put_right=True))
    assert mended == pytest.approx(right, abs=0.01)
    assert ours - 0.15 < decades(plain) <= ours
    if rogers is not None:
        choice = codes(case, rogers=True)
        cited = WholeOutputCapacity(**given(case), cover="rogers", choice=choice)
        assert rogers - 0.15 < decades(cited) <= rogers


@pytest.mark.parametrize(
    ("case", "gain"), [((16, 10, 1, "1/100", 2), 1), ((64, 100, 1, "1/100", 2), 7.7)]
)
def test_lists_gain_about_half_the_dimension_in_bits(case, gain):
    with_lists = WholeOutputCapacity(**given(case))
    without = WholeOutputCapacity(**given(case), choice=codes(case))
    assert with_lists.choice.list_size == case[0] // 2
    assert decades(with_lists) < decades(without) - gain


def test_the_published_theorem_says_no_target_at_all():
    """At a small radius its K is below 1, although tau = identity makes every target for k = 1."""
    small = WholeOutputCapacity(**given((4, 10, Fraction(1, 100), "1/10000", 2)))
    assert log10_up(published_log_threshold(small)) == pytest.approx(-1.55, abs=0.01)


@pytest.mark.parametrize("case", list(CASES)[:3])
def test_theorem_2a_and_its_twin(case):
    found = WholeOutputCapacity(**given(case))
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
    assert nats(found) == pytest.approx(math.log(twin), rel=1e-9)
    assert found.log_share(math.ceil(twin * (1 + 1e-12)) + 1) <= 0
    assert found.log_share(math.floor(twin * (1 - 1e-6))) > 0


@pytest.mark.parametrize(
    ("case", "tokens"),
    [
        ((2, 10, 1, "1/100", 1), 4),
        ((4, 2, 1, "1/5", 2), 1),
        ((4, Fraction(1, 9), 1, "1/100", 2), 3),
    ],
)
def test_theorem_2b_and_its_twin(case, tokens):
    found = ShortPromptCapacity(**given(case), tokens=tokens)
    assert nats(found) < nats(WholeOutputCapacity(**given(case)))
    d, lipschitz, radius, eps, order = case
    if lipschitz < 1:  # else it is beyond floats
        sizes = (float(found.delta), found.choice.alphabet, float(found.choice.theta), tokens, 2.0)
        given_ = (d, float(lipschitz), radius, float(Fraction(eps)), order)
        twin = context_twin.threshold_2b(*given_, *sizes)
        assert nats(found) == pytest.approx(math.log(twin), rel=1e-9, abs=1e-12)


def test_two_pairs_are_too_many_in_moderate_dimension():
    found = ShortPromptCapacity(**given((64, 100, 1, "1/100", 2)), tokens=16)
    assert nats(found) <= math.log(2)
    assert found.log_share(2) <= -100 * math.log(10)


def test_theorem_2b_says_how_long_and_how_far_apart_its_queries_are():
    """K rests on both: 10^0.000 for near queries, 10^7.1 for far ones."""
    sizes = given((4, 100, 1, "1/100", 2)) | {"tokens": 16}
    said = set()
    for spread, distance in (({"spread": Fraction(1, 10**9)}, "1/1000000000"), ({}, "2")):
        found = ShortPromptCapacity(**sizes, **spread)
        assert found.rests_on()[-1] == (
            f"Each query has 16 tokens, and W_2 between any two of them is at most {distance}."
        )
        claim = found.claim(found.value())
        assert f"with L = 100, queries of 16 tokens within {distance} of each other" in claim
        said.add(claim.partition("K = ")[2].partition(" ")[0])
    assert said == {"10^0.000", "10^7.098"}


@pytest.mark.parametrize("case", [(4, 10, 1, "1/100", 2), (16, 3, 1, "1/50", 1)])
def test_scale_invariance_and_monotonicity(case):
    sizes = given(case)
    here = WholeOutputCapacity(**sizes)
    scaled = sizes | {"radius": Fraction(7, 3), "eps": sizes["eps"] * Fraction(7, 3)}
    there = WholeOutputCapacity(**scaled)
    assert there.choice == here.choice
    assert nats(there) == pytest.approx(nats(here), rel=1e-15)
    chosen = {"choice": here.choice}
    more = WholeOutputCapacity(**(sizes | {"lipschitz": 2 * sizes["lipschitz"]}), **chosen)
    assert nats(more) > nats(here)
    coarser = WholeOutputCapacity(**(sizes | {"eps": sizes["eps"] / 2}), **chosen)
    assert nats(coarser) <= nats(here)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 0.1}, "eps must be an exact number"),
        ({"dim": 2, "cover": "rogers"}, "cover must be that of volumes"),
        ({"choice": {"delta": 1}}, "must be given"),
    ],
)
def test_inputs_out_of_range_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        WholeOutputCapacity(**(given((4, 10, 1, "1/100", 2)) | change))


def transport(one, other, q):
    """W_q between uniform measures on as many points (rows)."""
    cost = np.linalg.norm(one[:, None] - other[None], axis=2) ** q
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean() ** (1 / q))


@pytest.mark.parametrize(("q", "kappa"), [(1.0, 1), (2.0, 1), (2.0, 2)])
def test_few_words_lie_in_a_ball(q, kappa):
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


def test_a_family_needs_room():
    def family(ball, **more):
        sizes = {"dim": 2, "radius": Fraction(1), "order": Fraction(1)}
        return MeasureFamily(**sizes, ball=ball, theta=Fraction(1, 2), **more)

    fine = Fraction(1, 50)
    assert family(fine, alphabet=4).blocks == math.ceil((50 / 2 / 2) ** 2) // 4
    with pytest.raises(UserError, match="alphabet must be at most 157"):
        family(fine, alphabet=400)
    with pytest.raises(UserError, match="the ball"):
        family(Fraction(1), alphabet=4)
    with pytest.raises(UserError, match="theta"):
        family(fine, alphabet=4, list_size=2)


def test_lemma_c_in_by_brute_force():
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


def test_large_dimensions_have_room_for_the_weights():
    for dim in (8190, 8191, 10**6):
        found = WholeOutputCapacity(**given((dim, 10, 1, "1/100", 2)))
        assert found.choice.cover_share < 1
