"""Any statistics become those of h tokens, where values and scores are independent."""

import numpy as np
import pytest
from tests.reference.layers import draw as drawn

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.lab.one_layer.realise import rank_condition, realise
from promptlimits.lab.one_layer.setting import (
    SharedQuery,
    Statistics,
    attend,
    offsets,
    query_statistics,
    value_maps,
)


def draw(dim, heads, head_dim, seed):
    setting, _, generator = drawn(dim, heads, head_dim, 3, seed, hidden=4)
    mean = [value @ generator.standard_normal(dim) for value in value_maps(setting.layer)]
    log_weight = 2 * generator.standard_normal(heads)
    return setting, Statistics(mean=np.stack(mean), log_weight=log_weight)


@pytest.mark.parametrize(
    ("dim", "heads", "head_dim"),
    [(6, 1, 3), (6, 2, 2), (8, 2, 4), (12, 3, 4), (16, 4, 4), (24, 6, 4), (3, 1, 2)],
)
@pytest.mark.parametrize("seed", range(10))
def test_h_tokens_realise_any_statistics(dim, heads, head_dim, seed):
    setting, wanted = draw(dim, heads, head_dim, seed)
    assert rank_condition(setting)
    found = realise(setting, wanted)
    assert found.prompt.shape == (dim, heads)
    assert found.error < 1e-9
    assert attend(setting, found.prompt) == pytest.approx(
        offsets(query_statistics(setting), wanted), abs=1e-8
    )


def test_copies_share_the_weight_and_are_shorter():
    setting, _ = draw(6, 1, 3, 0)
    heavy = Statistics(
        mean=np.stack([value @ np.ones(6) for value in value_maps(setting.layer)]),
        log_weight=np.array([9.0]),
    )
    once, often = realise(setting, heavy), realise(setting, heavy, copies=1000)
    assert often.prompt.shape == (6, 1000)
    assert max(once.error, often.error) < 1e-9
    assert often.longest_token < 0.8 * once.longest_token


def test_full_rank_heads_cannot_choose_freely():
    setting, wanted = draw(4, 1, 4, 0)
    assert not rank_condition(setting)
    with pytest.raises(RunFailed, match="depend on each other"):
        realise(setting, wanted)


def test_as_many_ranks_and_heads_as_there_are_dimensions_is_the_edge():
    assert rank_condition(draw(6, 2, 4, 0)[0])  # 4 + 2 = 6
    assert not rank_condition(draw(5, 2, 4, 0)[0])


def test_a_mean_outside_the_range_is_seen_in_the_error():
    setting, wanted = draw(8, 2, 2, 1)
    outside = Statistics(mean=wanted.mean + 1.0, log_weight=wanted.log_weight)
    assert realise(setting, outside).error > 1e-3


def test_what_cannot_be_asked():
    setting, wanted = draw(6, 2, 2, 0)
    with pytest.raises(UserError, match="copies"):
        realise(setting, wanted, copies=0)
    turned = SharedQuery(layer=setting.layer, queries=setting.queries, rotary_base=10.0)
    with pytest.raises(ValueError, match="plain layer"):
        realise(turned, wanted)
