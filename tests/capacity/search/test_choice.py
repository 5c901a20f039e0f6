"""The prompt that goes to disk is the one that holds most of the whole list, ever."""

import torch
from tests.capacity.cases import attempt_of

from promptlimits.capacity.search import choice
from promptlimits.capacity.search.choice import choose
from promptlimits.capacity.task.targets import Targets
from promptlimits.capacity.train.evaluate import evaluate
from promptlimits.capacity.train.problem import Outcome
from promptlimits.nets.protocol import EncodedPair


def prompts(model):
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(2, 3, model.card.dim, generator=generator)
    return both[0], both[1]


def answered_by(model, prompt, keys):
    """Pairs whose value is the one token that the model answers behind `prompt`."""
    pairs = []
    for key in keys:
        bare = EncodedPair(key=str(key), value="", key_ids=(key,), value_ids=(0,))
        found = next(
            token
            for token in range(model.card.vocabulary)
            if evaluate(
                model, prompt, [EncodedPair(key="", value="", key_ids=(key,), value_ids=(token,))]
            ).held
        )
        pairs.append(
            EncodedPair(key=bare.key, value=str(found), key_ids=(key,), value_ids=(found,))
        )
    return pairs


def test_the_whole_list_decides_and_a_better_prompt_is_remembered(model, place):
    wide, narrow = prompts(model)
    pairs = (*answered_by(model, wide, range(5, 9)), *answered_by(model, narrow, range(9, 11)))
    targets = Targets.of(pairs)

    def made(prompt, held):
        # Of size 0: nothing of the list is known of it.
        return attempt_of(0, Outcome.STALLED, held=held, prompt=prompt)

    def chosen(attempts, unprompted=()):
        choice = choose(
            place,
            targets,
            attempts,
            work={"work": str(unprompted)},
            relative_lead=1e-9,
            uncredited=lambda held: set(held) & set(unprompted),
        )
        assert choice.held == evaluate(model, choice.prompt, pairs, relative_lead=1e-9).held
        return choice.prompt

    # `narrow` held more of what it was trained for, `wide` holds more of the list.
    assert torch.equal(chosen([made(narrow, 2), made(wide, 1)]), wide)
    # A later command of the same work that found less does not end with less.
    assert torch.equal(chosen([made(narrow, 2)]), wide)
    # Pairs that need no prompt are no credit to one.
    assert torch.equal(chosen([made(narrow, 2), made(wide, 1)], (0, 1, 2, 3)), narrow)
    assert choose(place, targets, [made(wide, 0)], work={"work": "new"}, relative_lead=1e-9) is None


def test_what_training_scored_is_not_run_again(model, place, monkeypatch):
    wide, _ = prompts(model)
    pairs = tuple(answered_by(model, wide, range(5, 11)))
    targets = Targets.of(pairs)
    asked = []

    def counted(model, prompt, pairs, **options):
        asked.append(tuple(pairs))
        return evaluate(model, prompt, pairs, **options)

    monkeypatch.setattr(choice, "evaluate", counted)

    def chosen(size, held, name):
        made = attempt_of(size, Outcome.STALLED, held=held, prompt=wide)
        return choose(place, targets, [made], work={"work": name}, relative_lead=1e-9).held

    # Trained for all of them, it held three.
    assert chosen(6, 3, "whole") == (0, 1, 2)
    assert asked == []
    # Which four a working set has does not show: all are asked, once.
    assert chosen(4, 3, "four") == (0, 1, 2, 3, 4, 5)
    assert chosen(4, 3, "again") == (0, 1, 2, 3, 4, 5)
    assert asked == [pairs]
