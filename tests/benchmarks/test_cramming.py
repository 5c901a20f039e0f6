"""A text in one vector, as the benchmarks search and decode it."""

import torch
from benchmarks.engine_parts.cramming import CONFIG
from benchmarks.engine_parts.doubling import doubling
from benchmarks.engine_parts.models import small_model
from benchmarks.engine_parts.text_runs import decoded, run_text

from promptlimits.capacity.search.texts import LINE, search_text

IDS = (5, 900, 77)


def test_a_text_is_held_and_stock_generate_says_so():
    with small_model(layers=2) as model:
        found = run_text(model, IDS, CONFIG, search_text, seconds=60.0)
        assert found.confirmed == len(IDS)
        assert found.result.complete
        assert decoded(model, found.prompt, (*IDS[:-1], IDS[-1] + 1)) == len(IDS) - 1
        assert decoded(model, torch.zeros_like(found.prompt), IDS) < len(IDS)


def test_no_step_begins_after_the_time_is_up():
    with small_model(layers=2) as model:
        found = run_text(model, IDS, CONFIG, search_text, seconds=0.0)
        assert not found.result.complete
        # One step of each of those that run side by side.
        assert found.steps == LINE.scouts
        assert run_text(model, IDS, CONFIG, doubling, seconds=0.0).steps == 1
