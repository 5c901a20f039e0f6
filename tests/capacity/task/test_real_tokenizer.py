"""The same tasks with a real tokenizer, which merges what stands side by side."""

from __future__ import annotations

import pytest

from promptlimits.capacity.task.resolve import load_task

pytestmark = pytest.mark.slow  # imports transformers, several seconds


def test_tasks_with_a_stock_tokenizer() -> None:
    from promptlimits.nets.load.codec import HuggingFaceCodec
    from promptlimits.testing.tiny_models import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    codec = HuggingFaceCodec(tokenizer, end_id=tokenizer.eos_token_id)
    facts = load_task("capitals", codec)
    assert len(facts.pairs) == 246
    assert not any("change when they are encoded" in note for note in facts.notes)

    random_task = load_task("random:200,2,3", codec, seed=1)
    plain = set(codec.plain_token_ids())
    assert random_task.answer_set_size == len(plain) ** 3
    for pair in random_task.pairs:
        # What a stock user types is what was trained on.
        assert tuple(tokenizer(pair.key).input_ids) == pair.key_ids
        assert set(pair.value_ids[:-1]) <= plain
        assert pair.value_ids[-1] == codec.end_id
