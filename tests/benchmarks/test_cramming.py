"""A text in one vector, as the benchmark searches, scores and decodes it."""

import torch
from benchmarks.engine_parts.cramming import _best, _decoded
from benchmarks.engine_parts.cramming_search import HEATS, SCOUTS, search
from benchmarks.engine_parts.models import small_model

IDS = (5, 900, 77)
LENGTHS = (1, 3)


def test_a_text_is_held_and_stock_generate_says_so():
    with small_model(layers=2) as model:
        stages = search(model, IDS, LENGTHS, most_steps=100, seconds=60.0)
        prompt, held = _best(model, IDS, stages)
        assert [stage.candidates for stage in stages] == [SCOUTS, HEATS, 1, 1]
        assert [stage.tokens for stage in stages] == [1, 1, *LENGTHS]
        assert stages[-1].solved
        assert held == len(IDS)
        assert _decoded(model, prompt, IDS) == len(IDS)
        assert _decoded(model, prompt, (*IDS[:-1], IDS[-1] + 1)) == len(IDS) - 1
        assert _decoded(model, torch.zeros_like(prompt), IDS) < len(IDS)


def test_no_stage_goes_on_after_the_time_is_up():
    with small_model(layers=2) as model:
        stages = search(model, IDS, LENGTHS, most_steps=100, seconds=0.0)
        assert [stage.steps for stage in stages] == [1, 1, 1]
        assert 0 <= _best(model, IDS, stages)[1] < len(IDS)
