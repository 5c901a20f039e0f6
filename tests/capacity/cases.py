"""What tests of this room share: a listener, stoppers, runs, attempts and verifications."""

import torch

from promptlimits.capacity.measure import measure
from promptlimits.capacity.search.attempt import Attempt, RunContext
from promptlimits.capacity.search.search import SearchResult
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.train.problem import Outcome
from promptlimits.capacity.train.state import TrainingState
from promptlimits.capacity.witness.verification import Answer, Verification
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.routes.causal import HuggingFaceCausalLM


class Notes:
    """A listener that keeps what it is told."""

    def __init__(self):
        self.stages = []
        self.lines = []
        self.steps = []
        self.attempts = []

    def stage(self, text, total=None):
        self.stages.append((text, total))

    def ends_at(self, moment): ...

    def advanced(self, done):
        assert done > 0

    def step(self, _kind, prompt_tokens, report):
        self.steps.append((prompt_tokens, report))

    def attempted(self, _kind, _prompt_tokens, attempt):
        self.attempts.append(attempt)

    def found(self, text):
        self.lines.append(text)


def never():
    """A stopper that never stops."""


def after(questions):
    """A stopper that says no until it was asked so many times."""
    left = iter(range(questions))
    return lambda: Outcome.OUT_OF_BUDGET if next(left, None) is None else None


def loaded(directory, **options):
    parts = load_parts(str(directory), **options)
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def runs(model, store):
    return RunContext(model=model, store=store, task_hash="t", provenance={})


def measured(model, task, request, folder):
    """One bracket command: its record, and what its listener was told."""
    notes = Notes()
    with Store.open(folder / "store.sqlite") as store:
        record = measure(model, task, request, folder=folder, store=store, listener=notes)
    return record.to_json(), notes


def without_times(value):
    """A record without what differs from run to run."""
    if isinstance(value, dict):
        left_out = {"seconds", "seconds_by_stage", "created", "versions", "out"}
        return {key: without_times(item) for key, item in value.items() if key not in left_out}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def attempt_of(size, outcome, *, held=0, prompt=None, seed=0):
    return Attempt(
        size=size,
        units="pairs",
        outcome=outcome,
        held=tuple(range(held)),
        state=TrainingState.start(torch.ones(2, 4) if prompt is None else prompt, size),
        steps=1,
        seconds=0.0,
        seed=seed,
    )


def result_of(*attempts):
    return SearchResult(prompt_tokens=2, attempts=attempts, stopped_because="", complete=True)


def facts(*attempts):
    """What two equal runs have in common, to the bit."""
    return [
        (one.size, one.outcome, one.held, one.steps, one.seed, one.prompt.numpy().tobytes())
        for one in attempts
    ]


def verified(exact):
    """What decoding confirmed of so many pairs."""
    answers = [
        Answer(
            key=str(key),
            value="",
            decoded="",
            generated_ids=(),
            exact=one,
            came="" if one else None,
            fault="" if one else "another answer",
            counted=one,
        )
        for key, one in enumerate(exact)
    ]
    return Verification(
        pairs_exact=sum(exact),
        of=len(exact),
        answers=tuple(answers),
        confirmed_by="",
        prompt_sha256="0" * 64,
        model_hash="",
        same_weights=True,
        created="",
        seconds=0.0,
        versions={},
    )
