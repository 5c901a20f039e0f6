"""A search in a faster, less exact twin: the model itself has the last word."""

from copy import copy
from dataclasses import replace

import pytest
import torch
from tests.capacity.train.problems import HOPELESS, PAIRS, problem

from promptlimits.base.errors import UserError
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.engine import train, train_many
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Outcome
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.routes.causal import HuggingFaceCausalLM
from promptlimits.testing.tiny_models import tiny_causal_lm


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A random GPT-2 of two layers in float32, which has a twin."""
    parts = load_parts(str(tiny_causal_lm(tmp_path_factory.mktemp("single"), "gpt2")))
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def searching(model, key=0, **settings):
    return problem(model, key, dtype=torch.float32, search_dtype="bfloat16", **settings)


def with_twin(model, twin):
    """The model, but searches run in `twin`."""
    changed = copy(model)
    changed.__dict__["narrow"] = twin
    return changed


def states_of(model, one):
    """Every state that a problem goes through, and its ending."""
    seen = []
    fit = train(
        model, one.pairs, one.config, state=one.state, on_step=lambda _, after: seen.append(after())
    )
    return seen, fit


def test_it_is_solved_in_few_steps_of_the_model_itself(single):
    seen, fit = states_of(single, searching(single))
    assert fit.outcome is Outcome.SOLVED
    found = evaluate(single, fit.prompt, PAIRS[:3], relative_lead=1e-3)
    assert found.held == fit.held == (0, 1, 2)
    modes = [state.finishing for state in seen]
    assert modes == sorted(modes)
    assert 1 <= sum(modes) < len(modes) / 2


@pytest.mark.parametrize("after", [0, 3, -3, -2])
def test_it_goes_on_from_any_step_to_the_same_bits(after, single):
    one = searching(single)
    seen, whole = states_of(single, one)
    resumed = replace(one, state=type(seen[after]).from_bytes(seen[after].to_bytes(), device="cpu"))
    _, fit = states_of(single, resumed)
    assert fit.state.to_bytes() == whole.state.to_bytes()
    assert (fit.held, fit.steps) == (whole.held, whole.steps)


def test_what_a_twin_takes_for_exact_counts_for_nothing(single):
    """Of a twin that is always right, the model is left with the prompt it started from."""

    class Sure:
        """Every target leads: its states are made to point at them."""

        def __init__(self, model):
            self.__dict__.update(model.__dict__)
            self.model = model

        def __getattr__(self, name):
            return getattr(self.model, name)

        def prepare(self, parts, *, kind):
            inner = self.model.prepare(parts, kind=kind)
            weight = self.model.head.linear.weight
            targets = torch.cat([part.pairs.targets for part in parts])

            class Batch:
                def read_states(self, prompts):
                    return 0 * inner.read_states(prompts) + 100 * weight[targets]

                def kept_bytes(self, states):
                    return 0

            return Batch()

    model = with_twin(single, Sure(single))
    one = searching(single, max_steps=2)
    seen, fit = states_of(model, one)
    assert [state.finishing for state in seen] == [False, True]
    assert seen[0].best_exact.all()
    expected = evaluate(single, fit.prompt, PAIRS[:3], relative_lead=1e-3).held
    assert fit.held == expected != (0, 1, 2)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_last_step_is_the_model_s_own(steps, single):
    seen, fit = states_of(single, searching(single, pairs=HOPELESS, max_steps=steps))
    assert (fit.outcome, fit.steps) == (Outcome.OUT_OF_STEPS, steps)
    assert [state.finishing for state in seen] == [False] * (steps - 1) + [True]


def test_a_search_that_stalls_is_gone_on_with_for_as_long_again(single):
    one = searching(single, pairs=HOPELESS, patience=4, max_steps=60)
    seen, fit = states_of(single, one)
    assert fit.outcome is Outcome.STALLED
    assert sum(state.finishing for state in seen) >= 4
    assert sum(not state.finishing for state in seen) >= 4


def test_when_the_time_is_up_the_model_scores_what_the_search_found(single):
    one = searching(single)
    seen, _ = states_of(single, one)
    last = max(step for step, state in enumerate(seen) if not state.finishing)
    asked = iter([None] * last + [Outcome.OUT_OF_BUDGET])
    fit = train(single, one.pairs, one.config, state=one.state, should_stop=lambda: next(asked))
    assert fit.outcome is Outcome.OUT_OF_BUDGET
    assert not fit.state.finishing
    assert fit.state.to_bytes() == seen[last - 1].to_bytes()
    assert fit.held == evaluate(single, fit.prompt, PAIRS[:3], relative_lead=1e-3).held


def test_beside_others_each_comes_out_as_alone(single):
    def problems():
        few = {"max_steps": 12, "patience": 12}
        return [
            searching(single, "a", seed=0, **few),
            problem(single, "b", seed=1, dtype=torch.float32, **few),
            searching(single, "c", seed=2, pairs=PAIRS, **few),
        ]

    together = {fit.key: fit for fit in train_many(single, problems())}
    for one in problems():
        (alone,) = train_many(single, [one])
        fit = together[one.key]
        assert (fit.outcome, fit.steps, fit.held) == (alone.outcome, alone.steps, alone.held)
        torch.testing.assert_close(fit.prompt, alone.prompt, rtol=1e-2, atol=1e-2)


def test_a_model_without_a_twin_is_refused(tiny):
    assert tiny.narrow is None
    with pytest.raises(
        UserError, match=r"search_dtype must be left out for model .*no faster twin"
    ):
        list(train_many(tiny, [searching(tiny)]))


def test_only_one_dtype_is_known():
    with pytest.raises(UserError, match="search_dtype must be bfloat16, got float16"):
        TrainingConfig(prompt_tokens=1, search_dtype="float16")
