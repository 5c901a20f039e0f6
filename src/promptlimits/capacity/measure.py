"""The main job: the bracket of a model and a list of pairs, at each prompt length.

Everything expensive is a record in the store, so the same command again goes on where the
last one stopped, or returns at once. The budget is counted over all resumptions, and most of it
goes to training: what is asked of the model beside that is bounded to a share of the seconds, and
what is not needed for a floor comes last.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from promptlimits.base.typing import JsonObject
from promptlimits.base.writing import replace_file
from promptlimits.capacity.bracket import Bracket
from promptlimits.capacity.ceiling import task_ceiling
from promptlimits.capacity.floor import find_floor
from promptlimits.capacity.job import Job
from promptlimits.capacity.record import bracket_record, is_whole, write_record
from promptlimits.capacity.replay_loss import loss_warnings, losses
from promptlimits.capacity.search.attempt import Attempt
from promptlimits.capacity.search.baselines import IN_CONTEXT, Baseline, in_context, written_out
from promptlimits.capacity.search.budget import Budget
from promptlimits.capacity.search.choice import choose
from promptlimits.capacity.search.control import Control, NoControl
from promptlimits.capacity.search.control_run import SearchBudget, control_within
from promptlimits.capacity.search.ordering import Order, ordered
from promptlimits.capacity.search.prompt_size import PromptSize
from promptlimits.capacity.search.request import Listener, Request, about, command_key
from promptlimits.capacity.search.search import SearchResult, State, search
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask, require_fits
from promptlimits.capacity.witness.files import require_replaceable
from promptlimits.capacity.witness.stock_check import require_stock_tools
from promptlimits.nets.protocol import FrozenModel, PromptKind

# What is set aside for the best prompt of a size, so that the command ends within its budget:
# seconds in which a fresh process imports and loads, and runs of the list in units of one of them.
_VERIFY_START_SECONDS = 12.0
_VERIFY_PER_EVALUATION = 4.0
# Shares that these may take on a slow machine: of the seconds left, and of all of them.
_MOST_VERIFYING = 0.15
_MOST_ORDERING = 0.15
_MOST_WITHOUT_PROMPT = 0.1
_MOST_IN_CONTEXT = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shorter:
    """What a shorter prompt of the same kind was confirmed to hold."""

    prompt: Tensor
    held: tuple[int, ...]


def measure(
    model: FrozenModel,
    task: EncodedTask,
    request: Request,
    *,
    folder: Path,
    store: Store,
    listener: Listener,
) -> JsonObject:
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
    require_stock_tools(request.kinds)
    require_fits(
        task, context_length=model.card.context_length, prompt_tokens=max(request.prompt_tokens)
    )
    for kind in request.kinds:
        model.prompt_width(kind)
    # What would be refused when a prompt is saved is refused before any is trained.
    for size in _sizes(request):
        require_replaceable(folder / _witness_name(size))
    key = command_key(model, task, request)
    done = store.get("bracket", key)
    if done is not None and is_whole(done, folder):
        again = "this command has ended before" if done["complete"] else "this budget is used up"
        listener.found(f"{again}: its result follows")
        return done
    job = Job.of(model, task, request, folder=folder, store=store, listener=listener)
    listener.ends_at(job.budget.ends)
    order = _order(job)
    brackets = _brackets(job, order)
    baselines = _baselines(job)
    record = bracket_record(
        model,
        task,
        request,
        folder=folder,
        baselines=baselines,
        brackets=[one.to_json(task, order=order) for one in brackets],
        complete=all(one.complete for one in brackets) and all(one.measured for one in baselines),
        warnings=job.warnings,
        seconds=job.used.before_seconds + job.budget.elapsed_seconds,
    )
    write_record(folder, record)
    job.used.commit()
    # Where all was lost it is decoded again, once whatever lost it is mended.
    if not losses(record, whole=True):
        store.put("bracket", key, record)
    return record


def _sizes(request: Request) -> list[PromptSize]:
    """Every kind at every length, shortest first."""
    return [PromptSize(kind, n) for kind in request.kinds for n in request.prompt_tokens]


def _witness_name(size: PromptSize) -> str:
    return f"witness-{size.file_name}"


def _order(job: Job) -> tuple[int, ...]:
    """The order of the search; that it was found also tells what one pass of the list takes."""
    request, pairs = job.request, job.task.pairs
    if job.beginnings is not None:
        return tuple(range(len(pairs)))

    def make() -> JsonObject:
        job.listener.stage("ordering the pairs", len(pairs))
        began = time.monotonic()
        found = ordered(
            job.model,
            pairs,
            request.order,
            seed=request.seed,
            on_chunk=job.listener.advanced,
            should_stop=job.budget.at_most(_MOST_ORDERING).time_is_up,
        )
        return {"indices": list(found), "seconds": time.monotonic() - began}

    known = job.once("order", {"order": request.order.value, "seed": request.seed}, make)
    if request.order is Order.EASIEST:
        job.evaluation_seconds = float(str(known["seconds"]))
    indices = known["indices"]
    return tuple(int(str(index)) for index in indices) if isinstance(indices, list) else ()


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
        job.listener.found(f"without a prompt: {_came_out(job, found)}")


def _in_context_seconds(job: Job) -> float | None:
    """About what the in-context baseline takes; None where that is more than its share."""
    pairs, limit = job.task.pairs, job.request.in_context_tokens
    asked = sum(len(pair.input_ids) for pair in pairs)
    seconds = job.evaluation_seconds * (1 + min(limit, len(written_out(pairs))) / asked)
    return seconds if seconds <= _MOST_IN_CONTEXT * job.request.budget_seconds else None


def _in_context(job: Job) -> Baseline:
    pairs, limit = job.task.pairs, job.request.in_context_tokens
    text = job.beginnings
    key: JsonObject = {
        **about(job.model, job.task),
        "name": IN_CONTEXT,
        "most_tokens": limit,
        "of_text": text is not None,
    }
    known = job.store.get("baseline", key)
    if known is not None:
        return Baseline.from_json(known)
    if job.budget.time_is_up() is not None:
        return Baseline(name=IN_CONTEXT, of=len(pairs), asked=0, exact=())
    job.listener.stage("asking every key with the pairs in context", len(pairs))
    found = in_context(
        job.model,
        pairs,
        most_tokens=limit,
        beginnings=text,
        on_chunk=job.listener.advanced,
        should_stop=job.budget.time_is_up,
    )
    if found.measured:
        job.store.put("baseline", key, found.to_json())
        job.listener.found(
            f"with {found.shots} pairs in context ({found.context_tokens} tokens): "
            f"{_came_out(job, found)}"
        )
    job.used.commit()
    return found


def _came_out(job: Job, baseline: Baseline) -> str:
    if job.beginnings is None:
        return f"{len(baseline.exact)} of {baseline.of} exact"
    return f"{baseline.tokens} of {len(job.beginnings)} tokens exact, from the first on"


# --- one kind and length of prompt after the other ------------------------------------------


def _brackets(job: Job, order: Sequence[int]) -> list[Bracket]:
    """One bracket per kind and length, shortest first; a search starts from the last prompt."""
    request = job.request
    sizes = _sizes(request)
    shorter: dict[PromptKind, _Shorter] = {}
    found: list[Bracket] = []
    for done, size in enumerate(sizes):
        began, before = time.monotonic(), job.store.seconds(job.hash_of(size))
        budget = _budget_of_size(job, sizes_left=len(sizes) - done)
        first = shorter.get(size.kind)
        own_order = order if first is None else _held_first(job, order, first)
        result = _search(job, own_order, size, first, budget)
        control = _control(job, own_order, size, result, budget) if request.control else None
        if not done:
            _without_prompt(job)
        bracket, held = _bracket(job, own_order, size, result)
        seconds = time.monotonic() - began
        job.store.add_seconds(job.hash_of(size), seconds)
        found.append(replace(bracket, control=control, seconds=before + seconds))
        if held is not None:
            shorter[size.kind] = held
        job.listener.found(f"{size.in_words}: {_confirmed(job, found[-1])}")
        job.warnings += loss_warnings(bracket.floor, size.in_words)
    return found


def _held_first(job: Job, order: Sequence[int], first: _Shorter) -> tuple[int, ...]:
    """The order of a longer prompt: what the shorter one holds must not be lost."""
    if job.beginnings is not None:
        return tuple(order)
    return tuple(sorted(order, key=lambda index: index not in first.held))


def _budget_of_size(job: Job, *, sizes_left: int) -> Budget:
    """The budget of search and control at one size: what comes after them is set aside."""
    verifying = min(
        sizes_left * (_VERIFY_START_SECONDS + _VERIFY_PER_EVALUATION * job.evaluation_seconds),
        _MOST_VERIFYING * job.budget.left_seconds * sizes_left,
    )
    in_context = _in_context_seconds(job) if job.request.in_context_tokens else None
    return job.budget.part(1 / sizes_left, keep_seconds=max(0.0, verifying) + (in_context or 0.0))


def _search(
    job: Job, order: Sequence[int], size: PromptSize, first: _Shorter | None, budget: Budget
) -> SearchResult:
    config, listener = job.request.search, job.listener
    listener.stage(f"searching with {size.in_words}")
    searching = SearchBudget(budget, control=job.request.control, starts=config.starts)

    def ended(attempt: Attempt) -> None:
        searching.note(attempt)
        listener.attempted(size.kind, size.tokens, attempt)

    already = 0 if first is None else _number_held(job, first.held)
    return search(
        job.workplace(lambda report: listener.step(size.kind, size.tokens, report), size.kind),
        job.listed(order),
        replace(
            config,
            training=replace(config.training, prompt_tokens=size.tokens),
            first_size=max(config.first_size, already),
        ),
        warm=None if first is None else first.prompt,
        should_stop=searching.should_stop,
        on_attempt=ended,
    )


def _control(
    job: Job, order: Sequence[int], size: PromptSize, result: SearchResult, budget: Budget
) -> Control | NoControl | None:
    """What the same optimiser recovers of answers that a known prompt gives."""
    control = control_within(
        budget,
        job.workplace(lambda _report: None, size.kind),
        job.listed(order),
        replace(job.request.search.training, prompt_tokens=size.tokens),
        result,
        stage=f"planted control with {size.in_words}",
        listener=job.listener,
    )
    job.used.commit()
    return control


def _bracket(
    job: Job, order: Sequence[int], size: PromptSize, result: SearchResult
) -> tuple[Bracket, _Shorter | None]:
    """The bracket of a search, and what the next longer prompt starts from."""
    request = job.request
    job.listener.stage("choosing the best prompt")
    choice = choose(
        job.model,
        job.task,
        result.attempts,
        store=job.store,
        work={"work": job.work_hash, **size.key},
        relative_lead=request.search.training.relative_lead,
        order=order,
        uncredited=job.unprompted.among,
        kind=size.kind,
        beginnings=job.beginnings,
        should_stop=job.budget.at_most(_MOST_VERIFYING / 2).time_is_up,
    )
    floor = find_floor(
        job.model,
        job.task,
        choice,
        folder=job.folder,
        name=_witness_name(size),
        store=job.store,
        extra={"seed": request.seed, "command": request.command},
        kind=size.kind,
        beginnings=job.beginnings,
        listener=job.listener,
    )
    ceiling = task_ceiling(
        job.model.card, job.task, size=size, width=job.model.prompt_width(size.kind)
    )
    replace_file(job.folder / ceiling.certificate_name, ceiling.certificate)
    bracket = Bracket(
        floor=floor,
        ceiling=ceiling,
        search=result,
        unprompted=job.unprompted.among(floor.held),
    )
    if choice is None or not floor.held:
        return bracket, None
    return bracket, _Shorter(prompt=choice.prompt, held=floor.held)


def _number_held(job: Job, held: Sequence[int]) -> int:
    """How many first members of the list are held: of a text, beginnings up to the longest."""
    return len(held) if job.beginnings is None else max(held) + 1


def _confirmed(job: Job, bracket: Bracket) -> str:
    """What became of a size, for a line of its own."""
    if bracket.state is State.NOT_SEARCHED:
        return f"not searched: the budget was used up after {bracket.search.steps} steps"
    held = _number_held(job, bracket.credited) if bracket.credited else 0
    if job.beginnings is None:
        return f"{held} of {len(job.task.pairs)} pairs found and confirmed"
    return f"{held} of {len(job.beginnings)} tokens, from the first on, found and confirmed"
