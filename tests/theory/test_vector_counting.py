"""The counting cap for vector targets, and the plans that use it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from flint import arb

from promptlimits.base.bound import LogBound, Source
from promptlimits.base.errors import UserError
from promptlimits.theory.number_formats import NumberFormat, number_format
from promptlimits.theory.prompt_plan import (
    LONGEST_PROMPT,
    error_floor,
    excluded_by,
    longest_answers,
    most_pairs,
    shortest_prompt,
)
from promptlimits.theory.prompt_setting import PromptSetting
from promptlimits.theory.vector_counting import (
    PromptValues,
    counted_share,
    counting_excludes,
    counting_kappa,
    hard,
    stored,
)

FLOAT32 = stored(number_format("float32"))


def alone(prompts: PromptValues) -> PromptValues:
    """The same prompts read in one environment."""
    return replace(prompts, environments_log2=0)


def case(**changes: Any) -> PromptSetting:
    usual = {
        "dim": 5,
        "prompt_tokens": 6,
        "tokens": 2,
        "lipschitz": 10,
        "radius": 1,
        "eps": Fraction(1, 10),
    }
    return PromptSetting(**(usual | changes))


def test_the_count_multiplied_out() -> None:
    tiny = alone(stored(NumberFormat(name="tiny", values=3)))
    share = counted_share(case(), 2, tiny).bound
    exact = Fraction(3**30, 10**20)
    assert share.proves_at_most(exact * Fraction(10**25 + 1, 10**25))
    assert not share.proves_at_most(exact * Fraction(10**25 - 1, 10**25))
    assert counted_share(case(), 2, tiny).first_pairs == 2  # 3^30 < 10^20, > 10^10
    assert counted_share(case(), 2, alone(hard(10))).first_pairs == 1  # 10^6 < 10^10


def test_an_exact_tie_is_not_excluded() -> None:
    prompts = alone(hard(10**5))  # 10^(5 * 6) against 10^(10 k): equal at k = 3
    assert not counting_excludes(case(), 3, prompts)
    assert counting_excludes(case(), 4, prompts)
    assert 0 <= counted_share(case(), 3, prompts).bound.log < 1e-28  # grid points
    assert counting_excludes(case(), 3, prompts, Fraction(1)) is False


def test_kappa_of_float32_at_one_hundredth() -> None:
    found = counting_kappa(case(eps=Fraction(1, 100)), alone(FLOAT32))
    assert f"{float(found):.3f}" == "4.816"  # where 3 eps in place of eps would give 6.32


def test_environments_count_like_prompts() -> None:
    """2^64 environments: as many lists of outputs as 64 bits more in the prompt give."""
    many = replace(hard(2**64), environments_log2=64)
    longer = case(prompt_tokens=7)
    for pairs in (1, 30, 42, 43, 60):
        found = counting_excludes(case(), pairs, many)
        assert found is counting_excludes(longer, pairs, alone(many))
        bound = counted_share(case(), pairs, many).bound
        same = counted_share(longer, pairs, alone(many)).bound
        assert abs(float(bound.log - same.log)) < 1e-27
    assert (
        counted_share(case(), 1, many).first_pairs
        == counted_share(longer, 1, alone(many)).first_pairs
    )
    assert hard(10).environments_log2 == stored(number_format("float32")).environments_log2 == 64
    # log 2^64 more over the 30 numbers of the prompt and log(r/eps) = log 10
    gain = counting_kappa(case(), FLOAT32) - counting_kappa(case(), alone(FLOAT32))
    assert float(gain) == pytest.approx(64 * math.log(2) / 30 / math.log(10), rel=1e-12)


def test_a_vocabulary_has_at_least_two_tokens() -> None:
    with pytest.raises(UserError, match="vocabulary"):
        hard(1)


@pytest.mark.parametrize("lipschitz", [Fraction(1, 2), 2, 10, 10**40])
@pytest.mark.parametrize("norm", ["token", "frobenius"])
def test_the_plans_invert_each_other(lipschitz: Any, norm: Any) -> None:
    setting = case(lipschitz=lipschitz, norm=norm)
    for share in (Fraction(1), Fraction(1, 10**6)):
        options: Any = {"share": share, "prompts": (FLOAT32,)}
        best = most_pairs(setting, **options)
        assert excluded_by(setting, best, **options) is None
        assert excluded_by(setting, best + 1, **options) is not None
        pairs = best + 3
        longer = shortest_prompt(setting, pairs, **options)
        if longer is None:
            assert excluded_by(replace(setting, prompt_tokens=10**6), pairs, **options)
        else:
            assert longer > setting.prompt_tokens
            enough = replace(setting, prompt_tokens=longer)
            assert excluded_by(enough, pairs, **options) is None
            fewer = replace(setting, prompt_tokens=longer - 1)
            assert excluded_by(fewer, pairs, **options) is not None
        floor = error_floor(setting, pairs, **options)
        assert floor.excluded is not None
        assert floor.excluded >= setting.eps * Fraction(999, 1000)
        assert excluded_by(replace(setting, eps=floor.excluded), pairs, **options)
        assert excluded_by(replace(setting, eps=floor.not_excluded), pairs, **options) is None
        tokens = longest_answers(setting, pairs, **options)
        assert tokens < setting.tokens
        assert excluded_by(replace(setting, tokens=tokens + 1), pairs, **options)


def test_the_winner_is_named() -> None:
    assert excluded_by(case(lipschitz=Fraction(1, 2)), 1) == "one centre"
    assert excluded_by(case(), 40) == "lipschitz"
    assert excluded_by(case(lipschitz=10**40), 40) is None
    assert excluded_by(case(lipschitz=10**40), 40, prompts=(FLOAT32,)) == "float32"
    assert excluded_by(case(), 0) is None


def test_a_share_is_exact_and_in_range() -> None:
    with pytest.raises(TypeError, match="Fraction"):
        excluded_by(case(), 1, share=0.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="share"):
        excluded_by(case(), 1, share=Fraction(2))


def test_errors_far_below_the_radius_have_a_floor() -> None:
    tiny = case(dim=3, prompt_tokens=100, tokens=1, lipschitz=10, eps=Fraction(1, 10**20))
    floor = error_floor(tiny, 101, prompts=(stored(number_format("float64")),))
    assert floor.excluded is not None
    assert tiny.eps <= floor.excluded < floor.not_excluded
    assert floor.not_excluded - floor.excluded <= floor.excluded / 2**40
    nothing = error_floor(case(lipschitz=10**40, tokens=1, prompt_tokens=50), 1)
    assert nothing.excluded is None


def test_a_prompt_beyond_all_lengths_is_not_sought() -> None:
    source = Source(reference="promptlimits", statement="test", form="proved here")
    none = LogBound(direction="upper", log=arb(-2302585), quantity="L", source=source)
    setting = case(lipschitz=none, norm="frobenius")
    started = time.monotonic()
    assert shortest_prompt(setting, 5) == LONGEST_PROMPT + 1
    assert time.monotonic() - started < 2
