"""The main job: the bracket of a model and a list of pairs, at each prompt length.

Everything expensive is a record in the store, so the same command again goes on where the
last one stopped, or returns at once. The budget is counted over all resumptions, and most of it
goes to training: what is asked of the model beside that is bounded to a share of the seconds, and
what is not needed for a floor comes last.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from promptlimits.base.files import replace_file
from promptlimits.capacity.bracket import bracket_of
from promptlimits.capacity.ceiling import task_ceiling
from promptlimits.capacity.job import VERIFY_START_SECONDS, Job, Shorter, require_possible
from promptlimits.capacity.record import bracket_record, stored_record, write_record
from promptlimits.capacity.search.baselines import IN_CONTEXT, in_context, written_out
from promptlimits.capacity.search.budget import Budget
from promptlimits.capacity.search.ordering import Order, ordered
from promptlimits.capacity.search.request import Listener, PromptSize, Request, command_key
from promptlimits.capacity.search.search import SearchResult
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.targets import Targets
from promptlimits.nets.protocol import FrozenModel, PromptKind
from promptlimits.record.parts import Baseline, Bracket, Control, NoControl, Seconds, State
from promptlimits.record.record import Record, losses

# What is set aside for the best prompt of a size, so that the command ends within its budget, in
# runs of the list: two to choose it, and as many as decoding a third of the list takes.
_VERIFY_PER_EVALUATION = 4.0
# Shares that these may take on a slow machine: of the seconds left, and of all of them.
_MOST_VERIFYING = 0.15
_MOST_ORDERING = 0.15
_MOST_WITHOUT_PROMPT = 0.1
_MOST_IN_CONTEXT = 0.2


def measure(
    model: FrozenModel,
    task: EncodedTask,
    request: Request,
    *,
    folder: Path,
    store: Store,
    listener: Listener,
) -> Record:
    """Measure the bracket at every prompt length asked for.

    Args:
        model: The frozen model.
        task: The pairs.
        request: What is asked for; its budget counts from this call on, and over all of them.
        folder: The output folder; witnesses, certificates and bracket.json are written there.
        store: The store of that folder, open for writing.
        listener: Who is told how it goes.

    Returns:
        The bracket record: what --json prints and the report is drawn from.

    Raises:
        UserError: A pair does not fit into the model's context with the longest prompt, or
            stock tools, as installed or for this model, cannot replay prompts of a kind asked for,
            or something else stands where a witness is to be written.
        RunFailed: A floor came out above its ceiling, or a prompt could not be confirmed.
    """
    witnesses = [folder / _witness_name(size) for size in _sizes(request)]
    require_possible(model, task, request, witnesses)
    key = command_key(model, task, request)
    done = stored_record(store.get("bracket", key), folder)
    if done is not None:
        again = "this command has ended before" if done.complete else "this budget is used up"
        listener.found(f"{again}: its result follows")
        return done
    job = Job.of(
        "bracket",
        model,
        task,
        task.targets,
        request,
        folder=folder,
        store=store,
        listener=listener,
    )
    with closing(job.verifier):
        job.targets = _ordered(job)
        brackets = _brackets(job)
    with job.used.stage("baselines"):
        baselines = _baselines(job)
    job.used.commit()
    record = bracket_record(
        model,
        task,
        request,
        folder=folder,
        baselines=baselines,
        brackets=brackets,
        warnings=job.warnings,
        seconds=Seconds(**job.used.by_stage()),
    )
    write_record(folder, record)
    # Where all was lost it is decoded again, once whatever lost it is mended.
    if not losses(record, whole=True):
        store.put("bracket", key, record.to_json())
    return record


def _sizes(request: Request) -> list[PromptSize]:
    """Every kind at every length, shortest first."""
    return [PromptSize(kind, n) for kind in request.kinds for n in request.prompt_tokens]


def _witness_name(size: PromptSize) -> str:
    return f"witness-{size.file_name}"


def _ordered(job: Job) -> Targets:
    """The targets in the order of the search; to find it tells what one pass of the list takes."""
    request, targets = job.request, job.targets
    if targets.own_order is not None:
        return targets
    key = job.about({"order": request.order.value, "seed": request.seed})
    known: Any = job.store.get("order", key)
    if known is None:
        job.listener.stage("ordering the pairs", len(targets))
        began = time.monotonic()
        with job.used.stage("ordering"):
            found = ordered(
                job.model,
                job.task.pairs,
                request.order,
                seed=request.seed,
                on_chunk=job.listener.advanced,
                should_stop=job.budget.at_most(_MOST_ORDERING).time_is_up,
            )
        known = {"indices": list(found), "seconds": time.monotonic() - began}
        job.store.put("order", key, known)
    if request.order is Order.EASIEST:
        job.evaluation_seconds = known["seconds"]
    return targets.in_order(known["indices"])


# --- without a trained prompt ---------------------------------------------------------------


def _baselines(job: Job) -> list[Baseline]:
    """What the model does without a trained prompt, as far as there is time for it."""
    without = job.unprompted.baseline(
        on_chunk=job.listener.advanced, should_stop=job.budget.time_is_up
    )
    if not job.request.in_context_tokens:
        return [without]
    if _in_context_seconds(job) is None:
        job.warnings.append(
            "the in-context baseline was left out: it would take more than "
            f"{_MOST_IN_CONTEXT:g} of the budget; raise --budget, or lower --in-context-tokens"
        )
        return [without]
    return [without, _in_context(job)]


def _without_prompt(job: Job) -> None:
    """Ask every key without a prompt, in a share of the time: what this misses is asked later."""
    job.listener.stage("asking every key without a prompt", len(job.task.pairs))
    found = job.unprompted.baseline(
        on_chunk=job.listener.advanced,
        should_stop=job.budget.at_most(_MOST_WITHOUT_PROMPT).time_is_up,
    )
    if found.measured:
        job.listener.found(f"without a prompt: {job.targets.tally(found.count, 'exact')}")


def _in_context_seconds(job: Job) -> float | None:
    """About what the in-context baseline takes; None where that is more than its share."""
    pairs, card = job.task.pairs, job.model.card
    asked = sum(len(pair.input_ids) for pair in pairs)
    context = min(job.request.in_context_tokens, len(written_out(pairs)))
    # A key takes as many products of a query as 2 of the width in every layer; a token takes one
    # of each weight but those of the vocabulary.
    weights = max(1, card.parameters - card.vocabulary * card.dim)
    seen = 2 * card.dim * card.layers * context * (context + asked) / weights
    seconds = job.evaluation_seconds * (asked + context + seen) / asked
    return seconds if seconds <= _MOST_IN_CONTEXT * job.request.budget_seconds else None


def _in_context(job: Job) -> Baseline:
    pairs, limit = job.task.pairs, job.request.in_context_tokens
    key = job.about({"name": IN_CONTEXT, "most_tokens": limit})
    known = job.store.get("baseline", key)
    if known is not None:
        return Baseline.model_validate(known)
    if job.budget.time_is_up() is not None:
        return Baseline.made(IN_CONTEXT, of=len(pairs), asked=0, exact=())
    job.listener.stage("asking every key with the pairs in context", len(pairs))
    found = in_context(
        job.model,
        pairs,
        job.targets,
        most_tokens=limit,
        on_chunk=job.listener.advanced,
        should_stop=job.budget.time_is_up,
    )
    if found.measured:
        job.store.put("baseline", key, found.to_json())
        job.listener.found(
            f"with {found.shots} pairs in context ({found.context_tokens} tokens): "
            f"{job.targets.tally(found.count, 'exact')}"
        )
    return found


# --- one kind and length of prompt after the other ------------------------------------------


def _brackets(job: Job) -> list[Bracket]:
    """One bracket per kind and length, shortest first; a search starts from the last prompt."""
    sizes = _sizes(job.request)
    shorter: dict[PromptKind, Shorter] = {}
    found: list[Bracket] = []
    for done, size in enumerate(sizes):
        began = time.monotonic()
        budget = _budget_of_size(job, sizes_left=len(sizes) - done)
        first = shorter.get(size.kind)
        targets = job.targets if first is None else job.targets.held_first(first.held)
        result, control = job.train(size, targets, budget, shorter=first)
        if not done:
            with job.used.stage("baselines"):
                _without_prompt(job)
        bracket, held = _bracket(job, targets, size, result, control, began=began)
        found.append(bracket)
        if held is not None:
            shorter[size.kind] = held
        job.listener.found(f"{size.in_words}: {_confirmed(job, bracket)}")
        if bracket.floor.lost_in_replay is not None:
            lost = bracket.floor.lost_in_replay
            job.warnings.append(f"{size.in_words}: {lost}; only those count")
    return found


def _budget_of_size(job: Job, *, sizes_left: int) -> Budget:
    """The budget of search and control at one size: what comes after them is set aside."""
    # Where it does not load while training ends, it does so afterwards, once.
    starting = 0.0 if job.loads_ahead else VERIFY_START_SECONDS
    verifying = min(
        starting + sizes_left * _VERIFY_PER_EVALUATION * job.evaluation_seconds,
        _MOST_VERIFYING * job.budget.left_seconds * sizes_left,
    )
    in_context = _in_context_seconds(job) if job.request.in_context_tokens else None
    return job.budget.part(1 / sizes_left, keep_seconds=max(0.0, verifying) + (in_context or 0.0))


def _bracket(
    job: Job,
    targets: Targets,
    size: PromptSize,
    result: SearchResult,
    control: Control | NoControl | None,
    *,
    began: float,
) -> tuple[Bracket, Shorter | None]:
    """The bracket of a search, and what the next longer prompt starts from."""
    floor, choice = job.confirm(
        size,
        targets,
        result,
        folder=job.folder / _witness_name(size),
        work={"work": job.work_hash},
        uncredited=job.unprompted.among,
        should_stop=job.budget.at_most(_MOST_VERIFYING / 2).time_is_up,
    )
    ceiling = task_ceiling(
        job.model.card, job.task, size=size, width=job.model.prompt_width(size.kind)
    )
    replace_file(job.folder / ceiling.certificate_name, ceiling.certificate)
    unprompted = job.unprompted.among(floor.held)
    work = job.hash_of(size)
    before, seconds = job.store.seconds(work), time.monotonic() - began
    job.store.add_seconds(work, seconds)
    bracket = bracket_of(
        floor,
        ceiling,
        result,
        unprompted=unprompted,
        control=control,
        seconds=before + seconds,
    )
    if choice is None or not floor.held:
        return bracket, None
    return bracket, Shorter(state=choice.state, held=floor.held)


def _confirmed(job: Job, bracket: Bracket) -> str:
    """What became of a size, for a line of its own."""
    if bracket.state is State.NOT_SEARCHED:
        steps = sum(one.steps for one in bracket.search)
        return f"not searched: the budget was used up after {steps} steps"
    return job.targets.tally(bracket.floor.held, "found and confirmed")
