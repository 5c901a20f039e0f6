"""Training ends for the right reason, resumes where it was, and keeps what it scored."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from promptlimits.capacity.train import evaluate as evaluation
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.engine import train
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.train.problem import Fit, StepReport
from promptlimits.capacity.train.prompts import from_vocabulary, lengthened
from promptlimits.capacity.train.state import TrainingState
from promptlimits.nets.protocol import EncodedPair, pack
from promptlimits.nets.routes.causal import HuggingFaceCausalLM

CONFIG = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=80, patience=80)


def start(model: HuggingFaceCausalLM, count: int, config: TrainingConfig) -> TrainingState:
    generator = torch.Generator().manual_seed(config.seed)
    prompts = from_vocabulary(
        model, count=1, prompt_tokens=config.prompt_tokens, generator=generator
    )
    return TrainingState.start(prompts[0], count)


def run(
    model: HuggingFaceCausalLM, pairs: list[EncodedPair], config: TrainingConfig, **kwargs: object
) -> Fit:
    state = kwargs.pop("state", None) or start(model, len(pairs), config)
    return train(model, pack(pairs), config, state=state, **kwargs)  # type: ignore[arg-type]


def test_a_small_problem_is_solved_and_its_prompt_really_answers(
    tiny: HuggingFaceCausalLM, pairs: list[EncodedPair]
) -> None:
    fit = run(tiny, pairs, CONFIG)
    assert fit.outcome is Outcome.SOLVED
    assert fit.held == (0, 1, 2)
    assert 1 < fit.steps < CONFIG.max_steps
    assert evaluate(tiny, fit.prompt, pairs, relative_lead=CONFIG.relative_lead).held == fit.held


def test_the_best_prompt_is_the_one_whose_score_is_reported(
    tiny: HuggingFaceCausalLM, pairs: list[EncodedPair]
) -> None:
    # Not the prompt one update later, a known flaw of earlier code.
    for steps in (3, 7, 11):
        fit = run(tiny, pairs, replace(CONFIG, max_steps=steps))
        assert evaluate(tiny, fit.prompt, pairs, relative_lead=1e-3).held == fit.held
        exact = evaluate(tiny, fit.state.best_prompt, pairs, relative_lead=1e-3).exact
        assert tuple(fit.state.best_exact.tolist()) == exact


@pytest.mark.parametrize("cut", [1, 5])
def test_a_run_cut_off_and_resumed_from_bytes_equals_one_that_was_not(
    cut: int, tiny: HuggingFaceCausalLM, pairs: list[EncodedPair]
) -> None:
    config = replace(CONFIG, max_steps=9)
    whole = run(tiny, pairs, config)
    saved: list[bytes] = []

    def stop() -> Outcome | None:
        return Outcome.OUT_OF_BUDGET if len(saved) >= cut else None

    part = run(
        tiny,
        pairs,
        config,
        should_stop=stop,
        on_step=lambda _, state: saved.append(state.to_bytes()),
    )
    assert part.outcome is Outcome.OUT_OF_BUDGET
    assert part.steps == cut
    resumed = TrainingState.from_bytes(saved[-1], device=tiny.device)
    rest = run(tiny, pairs, config, state=resumed)
    assert rest.outcome is whole.outcome
    assert rest.steps == whole.steps
    assert rest.state.to_bytes() == whole.state.to_bytes()


def test_endings(tiny: HuggingFaceCausalLM, pairs: list[EncodedPair]) -> None:
    hopeless = [replace(pairs[0], value_ids=(9, 0)), replace(pairs[0], value_ids=(10, 0))]
    assert run(tiny, hopeless, replace(CONFIG, max_steps=5)).outcome is Outcome.OUT_OF_STEPS
    stalled = run(tiny, hopeless, replace(CONFIG, patience=4))
    assert stalled.outcome is Outcome.STALLED
    assert len(stalled.held) <= 1
    broken = start(tiny, len(pairs), CONFIG)
    broken.prompt[0, 0] = float("nan")
    assert run(tiny, pairs, CONFIG, state=broken).outcome is Outcome.DIVERGED
    never = run(tiny, pairs, CONFIG, should_stop=lambda: Outcome.INTERRUPTED)
    assert (never.outcome, never.steps, never.held) == (Outcome.INTERRUPTED, 0, ())


def test_patience_counts_from_the_step_that_was_better(
    tiny: HuggingFaceCausalLM, pairs: list[EncodedPair]
) -> None:
    hopeless = [replace(pairs[0], value_ids=(9, 0)), replace(pairs[0], value_ids=(10, 0))]
    reports: list[StepReport] = []
    fit = run(
        tiny,
        hopeless,
        replace(CONFIG, patience=40, max_steps=300),
        on_step=lambda report, _: reports.append(report),
    )
    assert fit.outcome is Outcome.STALLED
    # One of two answers to one key can be held, and that takes a few steps.
    first = next(one.step for one in reports if one.best_exact == 1)
    assert first > 1
    assert fit.steps == first + 40


def test_patience_sees_progress_in_tokens_where_pairs_show_none(
    tiny: HuggingFaceCausalLM, pairs: list[EncodedPair]
) -> None:
    text = [replace(pairs[0], value_ids=(9, 14, 3, 11, 7, 22, 5, 18, 30, 2, 13, 8))]
    reports: list[StepReport] = []
    fit = run(
        tiny,
        text,
        replace(CONFIG, prompt_tokens=8, learning_rate=1.0, patience=30, max_steps=400),
        on_step=lambda report, _: reports.append(report),
    )
    right = [report.tokens_right for report in reports]
    gains = [step for step in range(1, len(right)) if right[step] > max(right[:step])]
    # No pair in all that time, but more and more tokens.
    assert fit.outcome is Outcome.STALLED
    assert len(gains) > 2
    assert fit.held == ()
    # Steps count from 1.
    assert fit.steps == gains[-1] + 1 + 30 > 60


def test_many_chunks_say_what_one_says(
    tiny: HuggingFaceCausalLM, pairs: list[EncodedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = from_vocabulary(
        tiny, count=1, prompt_tokens=2, generator=torch.Generator().manual_seed(0)
    )[0]
    several = pairs * 3
    done: list[int] = []
    whole = evaluate(tiny, prompt, several, on_chunk=done.append)
    assert done == [9]
    monkeypatch.setattr(evaluation, "_LOGIT_BYTES", 4 * tiny.card.vocabulary * 5)
    parts = evaluate(tiny, prompt, several, on_chunk=done.append)
    assert done[1:] == [2, 4, 6, 8, 9]
    assert parts.exact == whole.exact
    assert parts.loss_nats == pytest.approx(whole.loss_nats, rel=1e-9)


def test_each_step_is_reported_once_with_the_best_so_far(
    tiny: HuggingFaceCausalLM, pairs: list[EncodedPair]
) -> None:
    reports: list[StepReport] = []
    fit = run(tiny, pairs, CONFIG, on_step=lambda report, _: reports.append(report))
    assert [report.step for report in reports] == list(range(1, fit.steps + 1))
    best = [report.best_exact for report in reports]
    assert best == sorted(best)
    assert best[-1] == 3
    assert all(report.exact <= report.best_exact <= report.pairs == 3 for report in reports)


def test_a_warm_start_keeps_the_shorter_prompt_next_to_the_key() -> None:
    fresh, short = torch.zeros(3, 4), torch.ones(2, 4)
    assert lengthened(short, start=fresh).sum(dim=1).tolist() == [0, 4, 4]
    assert fresh.eq(0).all()


def test_starts_are_embeddings_of_ordinary_tokens_and_follow_the_seed(
    tiny: HuggingFaceCausalLM,
) -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return from_vocabulary(tiny, count=3, prompt_tokens=2, generator=generator)

    table = tiny.embed(torch.tensor(tiny.codec.plain_token_ids())).float()
    drawn = draw(0)
    assert drawn.shape == (3, 2, tiny.card.dim)
    assert all(bool((table == row).all(dim=1).any()) for row in drawn.flatten(0, 1))
    assert torch.equal(drawn, draw(0))
    assert not torch.equal(drawn, draw(1))
