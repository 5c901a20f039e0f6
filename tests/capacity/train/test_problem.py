"""What a problem takes of its settings: a prefix's learning rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.capacity.train.problems import PAIRS, problem

from promptlimits.capacity.train.engine import train_many
from promptlimits.capacity.train.problem import PREFIX_RATE, Problem
from promptlimits.capacity.train.prompts import from_vocabulary
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.protocol import PromptKind, pack
from promptlimits.nets.routes.causal import HuggingFaceCausalLM


def prefix_problem(model: HuggingFaceCausalLM) -> Problem:
    start = from_vocabulary(
        model,
        count=1,
        prompt_tokens=4,
        generator=torch.Generator().manual_seed(0),
        kind=PromptKind.PREFIX,
    )[0]
    soft = problem(model, max_steps=1, clip_norm=1e3)
    state = TrainingState.start(start.double(), len(PAIRS))
    return replace(soft, kind=PromptKind.PREFIX, pairs=pack(PAIRS), state=state)


def test_a_prefix_takes_smaller_steps_the_more_layers_it_acts_in(tiny: HuggingFaceCausalLM) -> None:
    soft, prefix = problem(tiny), prefix_problem(tiny)
    for step in (0, 50, 1000):
        whole = soft.learning_rate_at(step, layers=7)
        assert whole == soft.config.learning_rate_at(step)
        assert prefix.learning_rate_at(step, layers=1) == pytest.approx(PREFIX_RATE * whole)
        assert prefix.learning_rate_at(step, layers=12) == pytest.approx(PREFIX_RATE * whole / 12)


def test_the_engine_moves_a_prefix_by_its_own_rate(tiny: HuggingFaceCausalLM) -> None:
    one, states = prefix_problem(tiny), []
    list(train_many(tiny, [one], on_step=lambda _key, _report, state: states.append(state)))
    # Adam's first step moves every number that has a gradient by the learning rate.
    moved = (states[0].prompt - one.state.prompt).abs().max()
    rate = one.learning_rate_at(0, layers=tiny.card.layers)
    assert float(moved) == pytest.approx(rate, rel=1e-3)
