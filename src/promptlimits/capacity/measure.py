"""The main job: the bracket of a model and a list of pairs, at each prompt length.

Everything expensive is a record in the store, so the same command again goes on where the
last one stopped, or returns at once. Time is counted over all resumptions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from promptlimits._typing import JsonObject
from promptlimits.capacity.atomic_folder import replace_file
from promptlimits.capacity.attempt import Attempt, Workplace
from promptlimits.capacity.baselines import Baseline, in_context, no_prompt, written_out
from promptlimits.capacity.bracket import Bracket
from promptlimits.capacity.ceiling import sized, task_ceiling
from promptlimits.capacity.choice import choose
from promptlimits.capacity.clock import Deadline
from promptlimits.capacity.control import Control, NoControl
from promptlimits.capacity.control_run import SearchTime, control_within
from promptlimits.capacity.floor import find_floor
from promptlimits.capacity.ordering import ordered
from promptlimits.capacity.record import bracket_record, is_whole, write_record
from promptlimits.capacity.request import Listener, Request, command_key
from promptlimits.capacity.search import SearchResult, search
from promptlimits.models.protocol import EncodedPair, FrozenModel, PromptKind
from promptlimits.store.provenance import provenance, spec_hash
from promptlimits.store.sqlite import Store
from promptlimits.tasks.beginnings import Beginnings, beginnings
from promptlimits.tasks.encoded import EncodedTask, require_fits
from promptlimits.tuning.loop import StepReport

# What is set aside for verification, so that it ends within the budget: seconds in which a fresh
# process imports and loads, and the decoding of a list in units of one evaluation of it.
_VERIFY_START_SECONDS = 12.0
_VERIFY_PER_EVALUATION = 4.0
# Shares of the time left, and of the budget, that these may take on a slow machine.
_MOST_VERIFYING = 0.15
_MOST_BASELINE = 0.2


@dataclass(kw_only=True)
class _Job:
    """One running command: what its stages share."""

    model: FrozenModel
    task: EncodedTask
    request: Request
    store: Store
    folder: Path
    listener: Listener
    deadline: Deadline
    work_hash: str
    spent_before: float
    committed: float = 0.0
    evaluation_seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def beginnings(self) -> Beginnings | None:
        """Those of the task's text; None for a list."""
        return beginnings(self.task, self.model.codec)

    def listed(self, order: Sequence[int]) -> Sequence[EncodedPair]:
        """What is to be held, first things first: pairs in this order, or a text's beginnings."""
        return self.beginnings or [self.task.pairs[index] for index in order]

    def commit_time(self) -> None:
        """Count the time used since the last call."""
        elapsed = self.deadline.elapsed_seconds
        self.store.add_seconds(self.work_hash, max(0.0, elapsed - self.committed))
        self.committed = elapsed

    def once(self, kind: str, key: JsonObject, make: Callable[[], JsonObject]) -> JsonObject:
        """A record of the store, made now if it is not there."""
        full: JsonObject = {
            "model": self.model.card.model_hash,
            "dtype": self.model.card.compute_dtype,
            "task": self.task.hash,
            **key,
        }
        record = self.store.get(kind, full)
        if record is None:
            record = make()
            self.store.put(kind, full, record)
        self.commit_time()
        return record


def measure(
    model: FrozenModel,
    task: EncodedTask,
    request: Request,
    *,
    folder: Path,
    store: Store,
    listener: Listener,
    began: float | None = None,
) -> JsonObject:
    """Measure the bracket at every prompt length asked for.

    Args:
        model: The frozen model.
        task: The pairs.
        request: What is asked for.
        folder: The output folder; witnesses, certificates and bracket.json are written there.
        store: The store of that folder, open for writing.
        listener: Who is told how it goes.
        began: Moment of the monotonic clock from which the budget counts; now if None.

    Returns:
        The bracket record: what --json prints and the report is drawn from.

    Raises:
        UserError: A pair does not fit into the model's context with the longest prompt, or
            stock tools cannot replay prompts of a kind asked for.
        RunFailed: A floor came out above its ceiling, or a prompt could not be confirmed.
    """
    require_fits(
        task, context_length=model.card.context_length, prompt_tokens=max(request.prompt_tokens)
    )
    for kind in request.kinds:
        model.prompt_width(kind)
    key = command_key(model, task, request)
    done = store.get("bracket", key)
    if done is not None and is_whole(done, folder):
        listener.found("nothing left to do: this command has ended before; its result follows")
        return done
    job = _open_job(model, task, request, store, folder, listener, began)
    baselines = _baselines(job)
    brackets = _brackets(job, baselines)
    record = bracket_record(
        model,
        task,
        request,
        folder=folder,
        baselines=baselines,
        brackets=brackets,
        warnings=job.warnings,
        seconds=job.spent_before + job.deadline.elapsed_seconds,
    )
    write_record(folder, record)
    job.commit_time()
    store.put("bracket", key, record)
    return record


def _open_job(
    model: FrozenModel,
    task: EncodedTask,
    request: Request,
    store: Store,
    folder: Path,
    listener: Listener,
    began: float | None,
) -> _Job:
    # The budget is no part of the work: with a larger one, the same work goes on.
    work = spec_hash({**command_key(model, task, request), "budget_seconds": None})
    spent = store.seconds(work)
    return _Job(
        model=model,
        task=task,
        request=request,
        store=store,
        folder=folder,
        listener=listener,
        deadline=Deadline(
            budget_seconds=request.budget_seconds - spent,
            began=time.monotonic() if began is None else began,
        ),
        work_hash=work,
        spent_before=spent,
    )


def _baselines(job: _Job) -> list[Baseline]:
    pairs, model, listener = job.task.pairs, job.model, job.listener
    text = job.beginnings
    unit: JsonObject = {} if text is None else {"tokens": len(text)}
    listener.stage("asking every key without a prompt", len(pairs))
    without, job.evaluation_seconds = _baseline_once(
        job,
        {"name": "no prompt", **unit},
        lambda: no_prompt(model, pairs, beginnings=text, on_chunk=listener.advanced),
    )
    listener.found(f"without a prompt: {_came_out(without, text)}")
    limit = job.request.in_context_tokens
    asked = sum(len(pair.input_ids) for pair in pairs)
    seconds = job.evaluation_seconds * (1 + min(limit, len(written_out(pairs))) / asked)
    if limit == 0 or seconds > _MOST_BASELINE * job.request.budget_seconds:
        if limit:
            job.warnings.append(
                f"the in-context baseline was left out: it would have taken about {seconds:.0f} s "
                f"of {job.request.budget_seconds:.0f} s; raise --budget, or lower "
                "--in-context-tokens"
            )
        return [without]
    listener.stage("asking every key with the pairs in context", len(pairs))
    within, _ = _baseline_once(
        job,
        {"name": "in context", "most_tokens": limit, **unit},
        lambda: in_context(
            model, pairs, most_tokens=limit, beginnings=text, on_chunk=listener.advanced
        ),
    )
    listener.found(
        f"with {within.shots} pairs in context ({within.context_tokens} tokens): "
        f"{_came_out(within, text)}"
    )
    return [without, within]


def _came_out(baseline: Baseline, text: Beginnings | None) -> str:
    if text is None:
        return f"{len(baseline.exact)} of {baseline.of} exact"
    return f"{baseline.tokens} of {len(text)} tokens exact, from the first on"


def _baseline_once(
    job: _Job, key: JsonObject, make: Callable[[], Baseline]
) -> tuple[Baseline, float]:
    """A baseline and the seconds it took, now or when it was made."""

    def timed() -> JsonObject:
        began = time.monotonic()
        made = make().to_json()
        return {"baseline": made, "seconds": time.monotonic() - began}

    record = job.once("baseline", key, timed)
    fields = record["baseline"]
    if not isinstance(fields, dict):
        raise AssertionError("a stored baseline is an object")
    return Baseline.from_json(fields), float(str(record["seconds"]))


def _order(job: _Job) -> tuple[int, ...]:
    request, pairs = job.request, job.task.pairs
    if job.beginnings is not None:
        return tuple(range(len(pairs)))

    def make() -> JsonObject:
        job.listener.stage("ordering the pairs", len(pairs))
        found = ordered(
            job.model, pairs, request.order, seed=request.seed, on_chunk=job.listener.advanced
        )
        return {"indices": list(found)}

    indices = job.once("order", {"order": request.order.value, "seed": request.seed}, make)[
        "indices"
    ]
    return tuple(int(str(index)) for index in indices) if isinstance(indices, list) else ()


def _brackets(job: _Job, baselines: Sequence[Baseline]) -> list[JsonObject]:
    """One bracket per kind and length, shortest first; a search starts from the last prompt."""
    order = _order(job)
    sizes = [_Size(kind, n) for kind in job.request.kinds for n in job.request.prompt_tokens]
    unprompted = _unprompted(baselines[0])
    warm: dict[PromptKind, Tensor] = {}
    found: list[JsonObject] = []
    for done, size in enumerate(sizes):
        began = time.monotonic()
        before = job.store.seconds(_size_hash(job, size))
        deadline = _size_deadline(job, sizes_left=len(sizes) - done)
        result = _search(job, order, size, warm.get(size.kind), deadline)
        if result.best is not None:
            warm[size.kind] = result.best.prompt
        control = _control(job, order, size, result, deadline) if job.request.control else None
        seconds = before + time.monotonic() - began
        bracket = replace(_bracket(job, size, result, seconds, unprompted), control=control)
        job.store.add_seconds(_size_hash(job, size), time.monotonic() - began)
        found.append(bracket.to_json(job.task, order=order))
        job.listener.found(f"{size.in_words}: {_confirmed(job, bracket)} found and confirmed")
    return found


def _unprompted(without: Baseline) -> frozenset[int]:
    """Indices of the pairs, or of the beginnings of a text, that need no prompt."""
    return frozenset(without.exact if without.tokens is None else range(without.tokens))


def _confirmed(job: _Job, bracket: Bracket) -> str:
    if job.beginnings is None:
        return f"{len(bracket.credited)} of {len(job.task.pairs)} pairs"
    held = max(bracket.credited, default=-1) + 1
    return f"{held} of {len(job.beginnings)} tokens, from the first on,"


class _Size(NamedTuple):
    """What prompts of one bracket are."""

    kind: PromptKind
    tokens: int

    @property
    def in_words(self) -> str:
        plural = "s" if self.tokens > 1 else ""
        if self.kind is PromptKind.SOFT:
            return f"{self.tokens} prompt token{plural}"
        return f"a prefix of {self.tokens} token{plural}"

    @property
    def key(self) -> JsonObject:
        """What names it in the store; soft prompts are named as before there were prefixes."""
        of_kind: JsonObject = {} if self.kind is PromptKind.SOFT else {"kind": self.kind.value}
        return {"prompt_tokens": self.tokens, **of_kind}


def _size_hash(job: _Job, size: _Size) -> str:
    return spec_hash({"work": job.work_hash, **size.key})


def _size_deadline(job: _Job, *, sizes_left: int) -> Deadline:
    """The time for search and control at one size: verification is set aside."""
    verifying = min(
        sizes_left * (_VERIFY_START_SECONDS + _VERIFY_PER_EVALUATION * job.evaluation_seconds),
        _MOST_VERIFYING * job.deadline.left_seconds * sizes_left,
    )
    return job.deadline.part(1 / sizes_left, keep_seconds=max(0.0, verifying))


def _workplace(
    job: _Job, on_step: Callable[[StepReport], None], kind: PromptKind = PromptKind.SOFT
) -> Workplace:
    def stepped(report: StepReport) -> None:
        job.commit_time()
        on_step(report)

    return Workplace(
        model=job.model,
        store=job.store,
        task_hash=job.task.hash,
        provenance=provenance({"device": str(job.model.device)}),
        on_step=stepped,
        kind=kind,
        budget_bytes=job.request.budget_bytes,
    )


def _search(
    job: _Job, order: Sequence[int], size: _Size, warm: Tensor | None, deadline: Deadline
) -> SearchResult:
    request, listener, length = job.request, job.listener, size.tokens
    listener.stage(f"searching with {size.in_words}")
    searching = SearchTime(deadline, control=request.control, starts=request.search.starts)
    training = replace(request.search.training, prompt_tokens=length)

    def ended(attempt: Attempt) -> None:
        searching.note(attempt)
        listener.attempted(size.kind, length, attempt)

    return search(
        _workplace(job, lambda report: listener.step(size.kind, length, report), size.kind),
        job.listed(order),
        replace(request.search, training=training),
        warm=warm,
        should_stop=searching.should_stop,
        on_attempt=ended,
    )


def _control(
    job: _Job, order: Sequence[int], prompts: _Size, result: SearchResult, deadline: Deadline
) -> Control | NoControl | None:
    """What the same optimiser recovers of answers that a known prompt gives."""
    control = control_within(
        deadline,
        _workplace(job, lambda _report: None, prompts.kind),
        job.listed(order),
        replace(job.request.search.training, prompt_tokens=result.prompt_tokens),
        result,
        stage=f"planted control with {prompts.in_words}",
        listener=job.listener,
    )
    job.commit_time()
    return control


def _bracket(
    job: _Job, size: _Size, result: SearchResult, seconds: float, unprompted: frozenset[int]
) -> Bracket:
    job.listener.stage("decoding the best prompt with stock tools in a fresh process")
    choice = choose(
        job.model,
        job.task,
        result.attempts,
        store=job.store,
        work={"work": job.work_hash, **size.key},
        relative_lead=job.request.search.training.relative_lead,
        unprompted=unprompted,
        kind=size.kind,
        beginnings=job.beginnings,
    )
    floor = find_floor(
        job.model,
        job.task,
        choice,
        folder=job.folder,
        name=f"witness-{sized(size.kind, size.tokens)}",
        store=job.store,
        extra={"seed": job.request.seed, "command": job.request.command},
        kind=size.kind,
        beginnings=job.beginnings,
    )
    ceiling = task_ceiling(
        job.model.card,
        job.task,
        prompt_tokens=size.tokens,
        kind=size.kind,
        width=job.model.prompt_width(size.kind),
    )
    replace_file(job.folder / ceiling.certificate_name, ceiling.certificate)
    return Bracket(
        floor=floor, ceiling=ceiling, search=result, seconds=seconds, unprompted=unprompted
    )
