"""Both sides of the benchmark of vocabulary blocks compute the same."""

from __future__ import annotations

import pytest
import torch
from benchmarks.vocabulary_blocks import measure

from benchmarks import vocabulary_blocks


def test_both_sides_give_one_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    held = vocabulary_blocks.hold_contest

    def watched(states: torch.Tensor, *rest: object, most_tokens: int, **named: object) -> object:
        asked.append((len(states), most_tokens))
        return held(states, *rest, most_tokens=most_tokens, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(vocabulary_blocks, "hold_contest", watched)
    monkeypatch.setattr(vocabulary_blocks, "LOGIT_BYTES", 4 * 4 * 20_000)
    found = measure((6, 8, 20_000), rounds=1)
    assert found["relative_gradient_gap"] < 1e-5
    assert asked == [(4, 20_000), (2, 20_000)] * 2
