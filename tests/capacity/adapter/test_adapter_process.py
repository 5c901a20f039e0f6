"""An adapter is decoded in a process that has run nothing else."""

import pytest

from promptlimits.capacity.adapter.score import save_scored_witness, score_adapter


@pytest.mark.slow  # two processes that import torch, transformers and peft
def test_a_fresh_process_answers_as_the_slow_loop(adapters, tmp_path):
    case = adapters("CARTRIDGE")
    found = score_adapter(case.adapter, case.task, case.card)
    assert [a.generated_ids for a in found.answers] == [p.value_ids for p in case.task.pairs]
    verified = save_scored_witness(
        tmp_path / "w", case.adapter, found, case.task, case.card, extra={}
    )
    assert verified.pairs_exact == len(case.task.pairs)
