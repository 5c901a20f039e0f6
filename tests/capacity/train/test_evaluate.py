"""How much of an answer comes in a row, against asking for each beginning of it."""

from dataclasses import replace

import pytest
import torch

from promptlimits.capacity.train import evaluate as evaluate_module
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Outcome
from promptlimits.nets.protocol import EncodedPair, PromptKind

LENGTH = 6


def said(model, prompt, kind):
    """What the model answers, token by token, each the one that is asked for and exact."""
    pair = EncodedPair(key="", value="", key_ids=(1,), value_ids=(0,))
    for place in range(LENGTH):
        tries = [
            replace(pair, value_ids=(*pair.value_ids[:place], token))
            for token in range(model.card.vocabulary)
        ]
        (right,) = evaluate(model, prompt, tries, kind=kind).held
        pair = tries[right]
    return pair


@pytest.mark.parametrize("kind", list(PromptKind))
def test_it_ends_before_the_first_wrong_token(model, kind):
    generator = torch.Generator().manual_seed(3)
    prompt = torch.randn(2, model.prompt_width(kind), generator=generator)
    whole = said(model, prompt, kind)
    asked = [whole]
    for wrong in range(LENGTH):
        # Every token behind the wrong one is that of the right answer: it counts for nothing.
        ids = list(whole.value_ids)
        ids[wrong] = (ids[wrong] + 1) % model.card.vocabulary
        asked.append(replace(whole, value_ids=tuple(ids)))
    found = evaluate(model, prompt, asked, kind=kind)
    assert found.right == (LENGTH, *range(LENGTH))
    # Of the last pair all but the end marker is right.
    assert (found.held, found.but_end) == ((0,), (LENGTH,))
    assert evaluate(model, prompt, asked, kind=kind, relative_lead=1e9).right == (0,) * len(asked)


def test_what_is_left_when_it_is_stopped_is_not_run(model, monkeypatch):
    prompt = torch.zeros(0, model.card.dim)
    pairs = [EncodedPair(key="", value="", key_ids=(i,), value_ids=(0, 1)) for i in range(1, 8)]
    whole = evaluate(model, prompt, pairs)
    # Chunks of two pairs.
    monkeypatch.setattr(evaluate_module, "_LOGIT_BYTES", 4 * model.card.vocabulary * 4)
    asked = iter([None, Outcome.OUT_OF_BUDGET])
    cut = evaluate(model, prompt, pairs, should_stop=lambda: next(asked))
    assert cut.right == whole.right[:4]
    assert cut.loss_nats == pytest.approx(whole.loss_nats[:4], rel=1e-5)
    # A first chunk is always run.
    once = evaluate(model, prompt, pairs, should_stop=lambda: Outcome.OUT_OF_BUDGET)
    assert len(once.right) == 2
