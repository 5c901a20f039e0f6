"""Exactness, lead and loss, against what they mean."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from promptlimits.models.protocol import EncodedPair, pack
from promptlimits.tuning.objective import lead, score

PAIRS = [
    EncodedPair(key="", value="", key_ids=(1,), value_ids=(2, 0)),
    EncodedPair(key="", value="", key_ids=(3, 4), value_ids=(5, 6, 0)),
]
PACKED = pack(PAIRS)


def logits(seed: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 5, 8, generator=generator, dtype=torch.float64)


def test_reads_and_targets_are_those_of_next_token_prediction() -> None:
    assert PACKED.input_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert PACKED.lengths.tolist() == [2, 4]
    assert PACKED.read.tolist() == [0, 1, 3, 4, 5]
    assert PACKED.targets.tolist() == [2, 0, 5, 6, 0]
    assert PACKED.pair_of_read.tolist() == [0, 0, 1, 1, 1]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_pair_is_exact_when_every_token_is_the_argmax(seed: int) -> None:
    made = logits(seed)
    # Push some targets up so that exact pairs do occur.
    made.scatter_add_(
        2, PACKED.targets.expand(2, 5).unsqueeze(-1), torch.full((2, 5, 1), 2.0, dtype=made.dtype)
    )
    found = score(made, PACKED, sharpening=1.0, relative_lead=0.0)
    for problem in range(2):
        wins = made[problem].argmax(dim=-1) == PACKED.targets
        expected = [bool(wins[:2].all()), bool(wins[2:].all())]
        assert found.exact[problem].tolist() == expected
        assert float(found.tokens_right[problem]) == pytest.approx(float(wins.double().mean()))


def test_the_loss_is_the_mean_cross_entropy_of_sharpened_logits() -> None:
    made = logits(0)
    found = score(made, PACKED, sharpening=3.0, relative_lead=0.0)
    for problem in range(2):
        expected = cross_entropy(3.0 * made[problem], PACKED.targets)
        assert float(found.loss_nats[problem]) == pytest.approx(float(expected), rel=1e-12)


def test_lead_is_the_distance_to_the_best_other_token_in_units_of_the_largest_logit() -> None:
    row = torch.tensor([[[1.0, 4.0, -8.0, 3.0]]], dtype=torch.float64)
    assert lead(row, torch.tensor([1])).item() == pytest.approx((4 - 3) / 8)
    assert lead(row, torch.tensor([3])).item() == pytest.approx((3 - 4) / 8)
    torch.testing.assert_close(lead(5 * row, torch.tensor([1])), lead(row, torch.tensor([1])))


def test_a_win_by_less_than_the_lead_does_not_count() -> None:
    made = torch.zeros(1, 5, 8, dtype=torch.float64)
    made.scatter_(2, PACKED.targets.expand(1, 5).unsqueeze(-1), 1.0)
    made[0, 0, 7] = 0.995
    loose = score(made, PACKED, sharpening=1.0, relative_lead=0.004)
    strict = score(made, PACKED, sharpening=1.0, relative_lead=0.006)
    assert loose.exact.tolist() == [[True, True]]
    assert strict.exact.tolist() == [[False, True]]


def test_what_is_not_a_number_never_wins() -> None:
    made = torch.zeros(1, 5, 8, dtype=torch.float64)
    made.scatter_(2, PACKED.targets.expand(1, 5).unsqueeze(-1), 1.0)
    made[0, 4] = float("nan")
    assert score(made, PACKED, sharpening=1.0, relative_lead=0.0).exact.tolist() == [[True, False]]
