"""All sides of the benchmark of vocabulary blocks compute the same."""

from benchmarks import vocabulary_blocks


def test_all_sides_give_one_gradient(monkeypatch):
    asked = []
    logits = vocabulary_blocks.LinearHead.logits

    def watched(head, states, memory=None):
        asked.append((len(states), head.vocabulary))
        return logits(head, states, memory)

    monkeypatch.setattr(vocabulary_blocks.WholeRows, "logits", watched)
    monkeypatch.setattr(vocabulary_blocks, "LOGIT_BYTES", 4 * 4 * 20_000)
    found = vocabulary_blocks.measure((6, 8, 20_000), rounds=1)
    assert {"blocks", "whole_rows"} <= set(found["relative_gradient_gap"])
    assert max(found["relative_gradient_gap"].values()) < 1e-5
    assert asked == [(4, 20_000), (2, 20_000)] * 2
