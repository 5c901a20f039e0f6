"""Slow twins of the counting theorem: all decoders of a tiny world, and a plain linear scan."""

import itertools
import math
import random
from fractions import Fraction

import pytest

from promptlimits.base.exact import is_negative, log
from promptlimits.bounds.counting import Counting, shortest_prompt


def world(values, numbers, answers, **more):
    """The theorem for prompts of so many numbers."""
    tokens, dim = (1, numbers) if numbers else (0, 1)
    sizes = {"values": values, "dim": dim, "prompt_tokens": tokens, "answers": answers}
    return Counting.model_validate({**sizes, "environments_log2": 0} | more)


def assert_share(case, pairs, limit):
    """The theorem's share for `pairs` of the keys is that limit, to 30 digits."""
    near = Fraction(1, 10**30)
    assert is_negative(lambda: case.log_share(pairs) - log(limit * (1 + near)))
    assert is_negative(lambda: log(limit * (1 - near)) - case.log_share(pairs))


def bound_by_hand(values, numbers, answers, pairs, keys):
    """The right side of the theorem, multiplied out."""
    return Fraction(values**numbers * math.comb(keys, pairs), answers**pairs)


def share_of_lists(decoder, answers, pairs):
    """Share of all answer lists that some prompt has at least `pairs` of right.

    `decoder[p]` is the list of answers that prompt p gives to the keys.
    """
    keys = len(decoder[0])
    held = sum(
        any(sum(map(int.__eq__, row, wanted)) >= pairs for row in decoder)
        for wanted in itertools.product(range(answers), repeat=keys)
    )
    return Fraction(held, answers**keys)


def all_decoders(prompts, answers, keys):
    """Every function from prompts to answer lists: what a model could ever be."""
    lists = list(itertools.product(range(answers), repeat=keys))
    return itertools.product(lists, repeat=prompts)


# values N, numbers d m, answers M, keys n: all (M^n)^(N^(d m)) decoders are tried
WORLDS = [
    (2, 1, 2, 1),
    (2, 1, 2, 2),
    (2, 1, 2, 3),
    (2, 1, 3, 2),
    (2, 2, 2, 2),
    (3, 1, 2, 2),
    (3, 1, 2, 3),
    (3, 1, 3, 2),
    (2, 0, 3, 3),
]


@pytest.mark.parametrize(("values", "numbers", "answers", "keys"), WORLDS)
def test_no_decoder_beats_the_bound(values, numbers, answers, keys):
    worst = {pairs: Fraction(0) for pairs in range(1, keys + 1)}
    for decoder in all_decoders(values**numbers, answers, keys):
        for pairs, share in worst.items():
            worst[pairs] = max(share, share_of_lists(decoder, answers, pairs))
    for pairs, share in worst.items():
        limit = bound_by_hand(values, numbers, answers, pairs, keys)
        assert share <= limit
        if pairs == keys:  # the theorem is sharp when there is no choice of keys
            assert share == min(1, limit)
        assert_share(world(values, numbers, answers, pool=keys), pairs, limit)


@pytest.mark.parametrize(("values", "numbers", "answers", "keys"), WORLDS)
def test_every_list_pairs(values, numbers, answers, keys):
    """Some decoder holds every list of that length; none holds every longer list."""
    every = world(values, numbers, answers).value()["every_list_pairs"]
    some = any(
        share_of_lists(decoder, answers, keys) == 1
        for decoder in all_decoders(values**numbers, answers, keys)
    )
    assert some is (keys <= every)


@pytest.mark.parametrize("seed", range(5))
def test_random_tables_as_decoders_stay_below(seed):
    """Attack: 64 prompts that look up random lists of 6 answers, and 64 chosen far apart."""
    source = random.Random(seed)
    answers, keys = 3, 6
    lists = list(itertools.product(range(answers), repeat=keys))
    spread = [source.choice(lists)]
    while len(spread) < 64:  # greedily the list that differs most from those already there
        candidates = source.sample(lists, 20)
        spread.append(
            max(candidates, key=lambda c: min(sum(map(int.__ne__, c, row)) for row in spread))
        )
    tables = [tuple(source.choices(lists, k=64)), tuple(spread)]
    for table in tables:
        for pairs in range(1, keys + 1):
            assert share_of_lists(table, answers, pairs) <= bound_by_hand(
                2, 6, answers, pairs, keys
            )


def worst_share(prompts, environments, answers, keys, pairs):
    """The greatest share of lists held in some environment, over all models of the world.

    In an environment a prompt gives a list of answers, whatever it gives in another one.
    """
    lists = list(itertools.product(range(answers), repeat=keys))
    tables = list(itertools.product(lists, repeat=prompts))
    worst = Fraction(0)
    for each in itertools.product(tables, repeat=environments):
        held = sum(
            any(
                sum(map(int.__eq__, row, wanted)) >= pairs
                for table in each  # the environment
                for row in table  # the prompt
            )
            for wanted in lists
        )
        worst = max(worst, Fraction(held, len(lists)))
    return worst


@pytest.mark.parametrize(
    ("values", "answers", "keys", "log2"),
    [(2, 2, 2, 1), (2, 3, 1, 1), (2, 2, 3, 1), (2, 5, 1, 2), (3, 2, 2, 1)],
)
def test_a_prompt_read_differently_in_each_environment(values, answers, keys, log2):
    """All models of tiny worlds: H counts like bits of the prompt, and no fewer would do."""
    case = world(values, 1, answers, pool=keys, environments_log2=log2)
    every = case.value()["every_list_pairs"]
    for pairs in range(1, keys + 1):
        share = worst_share(values, 2**log2, answers, keys, pairs)
        limit = 2**log2 * bound_by_hand(values, 1, answers, pairs, keys)
        assert share <= limit
        if pairs == keys:
            assert share == min(1, limit)
            assert (share == 1) is (keys <= every)
        assert_share(case, pairs, limit)


GRID = [
    (values, numbers, answers, pool, share, log2)
    for values in (2, 3, 8)
    for numbers in (0, 1, 30)
    for answers in (2, 3, 64)
    for pool in (0, 7, 200)
    for share in (Fraction(1, 2), Fraction(3, 7), Fraction(1, 2**20))
    for log2 in (0, 5)
]


def test_ceiling_is_the_linear_scan():
    """The largest k of all with B(k) > share, found without any argument on its shape.

    The scan goes far beyond the ceiling, so that a second hump would be seen.
    """
    for values, numbers, answers, pool, share, log2 in GRID:
        scan = max(
            k
            for k in range(400)
            if 2**log2 * bound_by_hand(values, numbers, answers, k, max(pool, k)) > share
        )
        case = world(values, numbers, answers, pool=pool, share=share, environments_log2=log2)
        assert case.value()["pairs"] == scan


def test_shortest_prompt_is_the_linear_scan():
    for values in (2, 10):
        for dim in (1, 3):
            for answers in (2, 3, 64):
                for pool in (0, 30):
                    for pairs in (1, 5, 29, 31, 50):
                        share = Fraction(1, 64)
                        scan = next(
                            tokens
                            for tokens in itertools.count()
                            if bound_by_hand(values, dim * tokens, answers, pairs, max(pool, pairs))
                            > share
                        )
                        case = world(values, dim, answers, pool=pool, share=share)
                        assert scan == shortest_prompt(case, pairs)
