"""The counting cap for vector targets, and the plans that use it."""

import math
import time
from fractions import Fraction

import pytest

from promptlimits.base.errors import UserError
from promptlimits.base.exact import grid_up, grid_value
from promptlimits.bounds.core import Exp
from promptlimits.bounds.counting import VectorCounting
from promptlimits.bounds.prompt_capacity import PromptCapacity
from promptlimits.bounds.prompt_plan import LONGEST_PROMPT, Plan

USUAL = {"dim": 5, "prompt_tokens": 6, "tokens": 2, "radius": 1, "eps": Fraction(1, 10)}


def cap(values="float32", **changes):
    """Counted prompts, read in one environment unless told otherwise."""
    return VectorCounting.model_validate(
        {**USUAL, "values": values, "environments_log2": 0} | changes
    )


def hard(vocabulary, **changes):
    return cap(vocabulary, per_token=True, **changes)


def plan(*, values=(), share=Fraction(1), **changes):
    net = PromptCapacity.model_validate({**USUAL, "lipschitz": 10} | changes)
    sizes = {name: getattr(net, name) for name in USUAL} | {"pairs": net.pairs}
    caps = tuple(VectorCounting.model_validate({**sizes, "values": name}) for name in values)
    return Plan(net=net, caps=caps, share=share)


def test_the_count_multiplied_out():
    point = cap(3, pairs=2).value()["log_share"]
    exact = Fraction(3**30, 10**20)
    assert 0 < grid_value(point) - Fraction(math.log(exact)) + Fraction(1, 10**12) < 1e-11
    assert cap(3).value()["most_pairs"] == 1  # 3^30 < 10^20, > 10^10
    assert hard(10).value()["most_pairs"] == 0  # 10^6 < 10^10


def test_an_exact_tie_is_not_excluded():
    prompts = hard(10**5, pairs=3)  # 10^(5 * 6) against 10^(10 k): equal at k = 3
    assert not prompts.excluded(3)
    assert prompts.excluded(4)
    assert prompts.value() == {"log_share": 1, "most_pairs": 3}  # no precision tells 0 from above
    assert not prompts.excluded(3, Fraction(1))
    assert prompts.excluded(3, Fraction(10**9 + 1, 10**9))


def test_kappa_of_float32_at_one_hundredth():
    found = grid_value(grid_up(cap(eps=Fraction(1, 100)).kappa))
    assert f"{float(found):.3f}" == "4.816"  # where 3 eps in place of eps would give 6.32


def test_environments_count_like_prompts():
    """2^64 environments: as many lists of outputs as 64 bits more in the prompt give."""
    many, longer = hard(2**64, environments_log2=64), hard(2**64, prompt_tokens=7)
    for pairs in (1, 30, 42, 43, 60):
        assert many.excluded(pairs) is longer.excluded(pairs)
    assert many.value() == longer.value()
    assert (
        cap(environments_log2=64).environments_log2
        == plan(values=("float32",)).caps[0].environments_log2
    )
    # log 2^64 more over the 30 numbers of the prompt and log(r/eps) = log 10
    gain = grid_up(cap(environments_log2=64).kappa) - grid_up(cap().kappa)
    assert gain / 2**96 == pytest.approx(64 * math.log(2) / 30 / math.log(10), rel=1e-12)


def test_what_is_counted_is_named():
    assert (cap().prompts, hard(7).prompts) == ("float32", "vocabulary of 7 tokens")
    with pytest.raises(UserError, match="values must be a whole number from 2"):
        hard(1)
    with pytest.raises(UserError, match="eps must be below the radius"):
        cap(eps=1)


@pytest.mark.parametrize("lipschitz", [Fraction(1, 2), 2, 10, 10**40])
@pytest.mark.parametrize("norm", ["token", "frobenius"])
def test_the_plans_invert_each_other(lipschitz, norm):
    for share in (Fraction(1), Fraction(1, 10**6)):
        here = plan(lipschitz=lipschitz, norm=norm, share=share, values=("float32",))
        best = here.most_pairs()
        assert best == 0 or here.at(pairs=best).excluded_by() is None
        assert here.at(pairs=best + 1).excluded_by() is not None
        case = here.at(pairs=best + 3)
        longer = case.shortest_prompt()
        if longer is None:
            assert case.at(prompt_tokens=10**6).excluded_by()
        else:
            assert longer > case.net.prompt_tokens
            assert case.at(prompt_tokens=longer).excluded_by() is None
            assert case.at(prompt_tokens=longer - 1).excluded_by() is not None
        excluded, not_excluded = case.error_floor()
        assert excluded is not None
        assert excluded >= case.net.eps * Fraction(999, 1000)
        assert case.at(eps=excluded).excluded_by()
        assert case.at(eps=not_excluded).excluded_by() is None
        tokens = case.longest_answers()
        assert tokens < case.net.tokens
        assert case.at(tokens=tokens + 1).excluded_by()


def test_the_winner_is_named():
    assert plan(lipschitz=Fraction(1, 2)).excluded_by() == "one centre"
    assert plan(pairs=40).excluded_by() == "lipschitz"
    assert plan(lipschitz=10**40, pairs=40).excluded_by() is None
    assert plan(lipschitz=10**40, pairs=40, values=("float32",)).excluded_by() == "float32"


def test_errors_far_below_the_radius_have_a_floor():
    tiny = plan(
        dim=3, prompt_tokens=100, tokens=1, eps=Fraction(1, 10**20), pairs=101, values=("float64",)
    )
    excluded, not_excluded = tiny.error_floor()
    assert excluded is not None
    assert tiny.net.eps <= excluded < not_excluded
    assert not_excluded - excluded <= excluded / 2**40
    assert plan(lipschitz=10**40, tokens=1, prompt_tokens=50).error_floor()[0] is None


def test_a_prompt_beyond_all_lengths_is_not_sought():
    case = plan(lipschitz=Exp(exp=-2302585), norm="frobenius", pairs=5)
    started = time.monotonic()
    assert case.shortest_prompt() == LONGEST_PROMPT + 1
    assert time.monotonic() - started < 2
