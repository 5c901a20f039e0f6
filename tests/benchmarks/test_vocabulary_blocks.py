"""All sides of the benchmark of vocabulary blocks compute the same."""

from __future__ import annotations

import pytest
from torch import Tensor

from benchmarks import vocabulary_blocks
from promptlimits.nets.protocol import Memory


def test_all_sides_give_one_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    logits = vocabulary_blocks.LinearHead.logits

    def watched(
        head: vocabulary_blocks.WholeRows, states: Tensor, memory: Memory | None = None
    ) -> Tensor:
        asked.append((len(states), head.vocabulary))
        return logits(head, states, memory)

    monkeypatch.setattr(vocabulary_blocks.WholeRows, "logits", watched)
    monkeypatch.setattr(vocabulary_blocks, "LOGIT_BYTES", 4 * 4 * 20_000)
    found = vocabulary_blocks.measure((6, 8, 20_000), rounds=1)
    assert {"blocks", "whole_rows"} <= set(found["relative_gradient_gap"])
    assert max(found["relative_gradient_gap"].values()) < 1e-5
    assert asked == [(4, 20_000), (2, 20_000)] * 2
