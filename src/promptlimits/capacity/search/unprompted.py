"""Which pairs of a task the frozen model answers without a prompt: no prompt gets credit for them.

A pair is asked when somebody needs to know, and then remembered: the whole list for the baseline,
or, where there is no time for that, just the pairs that a prompt was found to hold.
"""

from __future__ import annotations

from collections.abc import Collection

from promptlimits.base.typing import JsonObject
from promptlimits.capacity.search.baselines import NO_PROMPT, Baseline, OnChunk, no_prompt
from promptlimits.capacity.search.request import about
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.beginnings import beginnings
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.train.problem import Stopper
from promptlimits.nets.protocol import FrozenModel


class Unprompted:
    """The pairs of a list, or beginnings of a text, that the model answers without a prompt.

    Args:
        model: The frozen model.
        task: The pairs.
        store: Where answers are kept.
    """

    def __init__(self, model: FrozenModel, task: EncodedTask, store: Store) -> None:
        self._model = model
        self._task = task
        self._store = store
        self._text = beginnings(task, model.codec)
        self._key = about(model, task)
        known = store.get("unprompted", self._key) or {"asked": [], "exact": [], "tokens": None}
        self._asked, self._exact = _indices(known["asked"]), _indices(known["exact"])
        self._tokens = None if known["tokens"] is None else int(str(known["tokens"]))

    def among(self, indices: Collection[int]) -> frozenset[int]:
        """Those of these pairs, or beginnings, that need no prompt."""
        if self._text is not None:
            self.baseline()
            return frozenset(indices) & frozenset(range(self._tokens or 0))
        self._ask(sorted(set(indices)))
        return frozenset(indices) & self._exact

    def baseline(
        self, *, on_chunk: OnChunk | None = None, should_stop: Stopper | None = None
    ) -> Baseline:
        """What the model answers of the whole task."""
        self._ask(range(len(self._task.pairs)), on_chunk, should_stop)
        return Baseline(
            name=NO_PROMPT,
            of=len(self._task.pairs),
            asked=len(self._asked),
            exact=tuple(sorted(self._exact)),
            tokens=self._tokens,
        )

    def _ask(
        self,
        indices: Collection[int],
        on_chunk: OnChunk | None = None,
        should_stop: Stopper | None = None,
    ) -> None:
        """Ask those of the pairs that were not asked yet, and remember what came."""
        new = [index for index in indices if index not in self._asked]
        if not new:
            return
        found = no_prompt(
            self._model,
            [self._task.pairs[index] for index in new],
            beginnings=self._text,
            on_chunk=on_chunk,
            should_stop=should_stop,
        )
        self._asked.update(new[: found.asked])
        self._exact.update(new[position] for position in found.exact)
        self._tokens = found.tokens
        said: JsonObject = {
            "asked": [*sorted(self._asked)],
            "exact": [*sorted(self._exact)],
            "tokens": self._tokens,
        }
        self._store.put("unprompted", self._key, said)


def _indices(stored: object) -> set[int]:
    """Indices as the store keeps them."""
    return {int(str(index)) for index in stored} if isinstance(stored, list) else set()
