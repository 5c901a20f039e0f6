"""One prompt for all the given pairs: trained, saved and confirmed like a floor."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from promptlimits.capacity.job import Job, require_possible
from promptlimits.capacity.search.control import is_complete
from promptlimits.capacity.search.request import Listener, PromptSize, Request
from promptlimits.capacity.search.search import state_of
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.targets import Targets
from promptlimits.nets.protocol import FrozenModel
from promptlimits.record.record import Fit


def fit_all(
    model: FrozenModel,
    task: EncodedTask,
    request: Request,
    *,
    folder: Path,
    store: Store,
    listener: Listener,
) -> Fit:
    """Train one prompt for every pair of a task, save the best one, and have it confirmed.

    The request names one kind and one length. A text is a list of one pair, held as a whole or not.
    """
    (kind,), (tokens,) = request.kinds, request.prompt_tokens
    size = PromptSize(kind, tokens)
    witness = folder / f"fit-{size.file_name}"
    require_possible(model, task, request, [witness])
    targets = Targets.of(task.pairs)
    job = Job.of(
        "fit", model, task, targets, request, folder=folder, store=store, listener=listener
    )
    with closing(job.verifier):
        result, control = job.train(size, targets, job.budget, all_at_once=True)
        # Whatever its settings were: an earlier fit's prompt is not lost to a worse one.
        work = job.about({"fit": True})
        floor, _ = job.confirm(size, targets, result, folder=witness, work=work)
    unprompted = job.unprompted.among(floor.held)
    job.used.commit()
    held, last = floor.held, result.attempts[-1]
    complete = is_complete(result, control)
    return Fit(
        prompt_kind=kind.value,
        state=state_of(result, claimed=floor.claimed, credited=held),
        complete=complete,
        go_on=None if complete else request.go_on(job.seconds),
        pairs=len(held),
        of=len(task.pairs),
        also_answered_unprompted=len(unprompted),
        text_tokens=task.text_tokens,
        notes=tuple(task.notes),
        search_dtype=request.search_dtype(model),
        outcome=last.outcome.value,
        remedy=last.outcome.remedy_for(targets.units),
        witness=floor.witness if held else None,
        confirmed_by="" if floor.verification is None else floor.verification.confirmed_by,
        lost_in_replay=floor.loss,
        answers=floor.answers(unprompted),
        not_held=tuple(pair.key for index, pair in enumerate(task.pairs) if index not in set(held)),
        control=control,
        search=tuple(one.row for one in result.attempts),
    )
