"""A grid of a user's own: frozen models, lists, kinds of prompt, lengths, sizes and seeds.

A cell draws `size` pairs of a list by its seed, a larger size with the pairs of a smaller one, and
trains one prompt for all of them from several starts, side by side, for a number of steps. With
`control` each cell has a twin whose answers a known prompt gives. Success is that some start
answers every pair exactly, each token with the lead that a saved prompt needs
(`capacity.train.config`). `fit` saves such a prompt and has stock tools confirm it, a sweep does
not.
"""

from __future__ import annotations

import functools
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, ValidationError

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, cannot_read, read_regular_text
from promptlimits.base.strict import Many, Positive, Strict
from promptlimits.experiments.execute import Done, Work
from promptlimits.experiments.statistics.slopes import with_intercept
from promptlimits.experiments.statistics.success import K50Lines, SuccessCurve, planted_control
from promptlimits.record.experiment import Control, Estimated
from promptlimits.report.figures.curves import Curve, Curves

_STARTS_APART: Final = 1_000
"""Seeds of starts count up from this many times the cell's seed."""
_MOST_SPEC_BYTES: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One list for one prompt."""

    model: str
    pairs: str
    kind: str
    prompt_tokens: int
    size: int
    seed: int
    planted: bool
    steps: int
    starts: int
    learning_rate: float
    dtype: str

    @property
    def curve(self) -> tuple[str, str, str, int]:
        """What attempts of one curve share."""
        return self.model, self.pairs, self.kind, self.prompt_tokens


class Grid(Strict):
    """What a sweep varies, as its TOML file has it."""

    models: Annotated[Many[str], Field(min_length=1)]
    pairs: Annotated[Many[str], Field(min_length=1)]
    kinds: Annotated[Many[Literal["soft", "prefix"]], Field(min_length=1)] = ("soft",)
    prompt_tokens: Annotated[Many[Positive], Field(min_length=1)]
    sizes: Annotated[Many[Positive], Field(min_length=1)]
    seeds: Positive  # 0, ..., seeds - 1
    steps: Positive  # of each start
    starts: Annotated[int, Field(ge=1, lt=_STARTS_APART)] = 1
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    control: bool = True

    def cells(self) -> tuple[Attempt, ...]:
        """The grid, one model after the other."""
        return tuple(
            Attempt(
                model=model,
                pairs=pairs,
                kind=kind,
                prompt_tokens=tokens,
                size=size,
                seed=seed,
                planted=planted,
                steps=self.steps,
                starts=self.starts,
                learning_rate=self.learning_rate,
                dtype=self.dtype,
            )
            for model, pairs, kind, tokens, size, planted, seed in itertools.product(
                self.models,
                self.pairs,
                self.kinds,
                sorted(set(self.prompt_tokens)),
                sorted(set(self.sizes)),
                (False, True) if self.control else (False,),
                range(self.seeds),
            )
        )


def read_grid(path: Path) -> Grid:
    """The grid of a TOML file.

    Raises:
        UserError: It cannot be read, is no TOML, or a field of it breaks a rule.
    """
    try:
        fields = tomllib.loads(read_regular_text(path, at_most=_MOST_SPEC_BYTES))
    except OSError as error:
        raise cannot_read("the grid", error) from error
    except ValueError as error:
        raise UserError(
            "the grid", "be a file of TOML", got=str(error), remedy='write models = ["gpt2"]'
        ) from error
    try:
        grid = Grid.from_json(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the grid"
        rule = first["msg"].removeprefix("Input should ")
        raise UserError(
            name, rule, got=first["input"], remedy="see `promptlimits sweep --help`"
        ) from error
    _require_lists(grid)
    return grid


def _require_lists(grid: Grid) -> None:
    """Read every list once, before a model is loaded."""
    from promptlimits.capacity.task.resolve import read_source
    from promptlimits.capacity.task.text import TextSpec

    for pairs in grid.pairs:
        source = read_source(pairs, limit=None if pairs.startswith("text:") else max(grid.sizes))
        if isinstance(source.pairs, TextSpec):
            raise UserError(
                "pairs", "be lists", got=pairs, remedy="a text has one size; use `bracket`"
            )


@functools.lru_cache(maxsize=1)
def _model(reference: str, dtype: str) -> Any:
    """A frozen model, kept for the next cell of a worker."""
    import torch

    from promptlimits.nets.load.load import load_parts
    from promptlimits.nets.routes.causal import HuggingFaceCausalLM

    parts = load_parts(reference, dtype=getattr(torch, dtype), device="cpu")
    return HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)


def measure(cell: Attempt) -> JsonObject:
    """Train, and count the pairs that the best start answers."""
    import torch

    from promptlimits.capacity.search.planting import plant
    from promptlimits.capacity.task.resolve import encode_source, read_source
    from promptlimits.capacity.train.config import TrainingConfig, lead_in
    from promptlimits.capacity.train.engine import train_many
    from promptlimits.capacity.train.problem import Problem
    from promptlimits.capacity.train.state import TrainingState, from_vocabulary
    from promptlimits.nets.protocol import PromptKind, pack

    model, kind = _model(cell.model, cell.dtype), PromptKind(cell.kind)
    task = encode_source(read_source(cell.pairs, limit=cell.size, seed=cell.seed), model.codec)
    config = TrainingConfig(
        prompt_tokens=cell.prompt_tokens,
        learning_rate=cell.learning_rate,
        max_steps=cell.steps,
        patience=cell.steps,
        seed=_STARTS_APART * cell.seed,
        relative_lead=lead_in(cell.dtype),
    )
    pairs = task.pairs
    if cell.planted:
        known = plant(
            model, pairs, config, size=cell.size, token_norm=None, should_stop=lambda: None,
            kind=kind,
        )  # fmt: skip
        pairs = () if known is None else known.pairs
    about: JsonObject = {"model_hash": model.card.model_hash, "task_hash": task.hash}
    if not pairs:  # every planted answer is a near tie
        return about | {"of": 0, "held": 0, "solved": None, "steps": 0}
    packed = pack(pairs, device=model.device)

    def problem(start: int) -> Problem:
        own = replace(config, seed=config.seed + start)
        prompt = from_vocabulary(
            model, count=1, prompt_tokens=cell.prompt_tokens,
            generator=torch.Generator().manual_seed(own.seed), kind=kind,
        )[0]  # fmt: skip
        state = TrainingState.start(prompt, len(pairs))
        return Problem(key=start, pairs=packed, config=own, state=state, kind=kind, race="starts")

    fits = list(train_many(model, map(problem, range(cell.starts))))
    held = max(len(fit.held) for fit in fits)
    return about | {
        "of": len(pairs),
        "held": held,
        "solved": held == len(pairs),
        "steps": sum(fit.steps for fit in fits),
    }


WORK: Final = Work(name="sweep", engine=1, measure=measure)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One curve of a sweep."""

    model: str
    pairs: str
    kind: str
    prompt_tokens: int
    success: SuccessCurve
    control: Control | None

    @property
    def group(self) -> str:
        """All but the length of the prompt."""
        return f"{self.model}, {self.pairs}, {self.kind}"

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.group}, {self.prompt_tokens} prompt tokens"

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {
            "model": self.model,
            "pairs": self.pairs,
            "kind": self.kind,
            "prompt_tokens": self.prompt_tokens,
            "sizes": list(self.success.sizes),
            "solved": list(self.success.counts),
            "of": self.success.problems,
            "shares": [share.to_json() for share in self.success.shares],
            "k50": self.success.k50.to_json(),
            "control": None if self.control is None else self.control.to_json(),
        }


def curves(done: Sequence[Done[Attempt]]) -> tuple[Measured, ...]:
    """The curves of a sweep.

    Raises:
        UserError: The store has cells of two models or lists under one name.
    """
    groups: dict[tuple[str, str, str, int], list[Done[Attempt]]] = {}
    for each in done:
        groups.setdefault(each.cell.curve, []).append(each)
    _require_one_model(done)
    return tuple(_measured(cells) for cells in groups.values())


def _require_one_model(done: Sequence[Done[Attempt]]) -> None:
    seen: dict[object, object] = {}
    for each in done:
        cell, record = each.cell, each.record
        for name, kept in (
            ((cell.model, cell.dtype), record["model_hash"]),
            ((cell.model, cell.pairs, cell.size, cell.seed), record["task_hash"]),
        ):
            if seen.setdefault(name, kept) != kept:
                raise UserError(
                    "--out",
                    "hold cells of one model and one list under one name",
                    got=f"two under {name[0]}",
                    remedy="choose another folder: a file has changed since the sweep began",
                )


def _measured(cells: Sequence[Done[Attempt]]) -> Measured:
    table: dict[bool, dict[int, list[bool | None]]] = {False: {}, True: {}}
    for each in sorted(cells, key=lambda each: (each.cell.size, each.cell.seed)):
        rows = table[each.cell.planted]
        rows.setdefault(each.cell.size, []).append(each.record["solved"])
    model, pairs, kind, tokens = cells[0].cell.curve
    return Measured(
        model=model,
        pairs=pairs,
        kind=kind,
        prompt_tokens=tokens,
        success=SuccessCurve(
            sizes=tuple(table[False]), solved=np.array(list(table[False].values()), dtype=bool)
        ),
        control=_control(table[True]),
    )


def _control(rows: Mapping[int, Sequence[bool | None]]) -> Control | None:
    sizes = [[one for one in row if one is not None] for row in rows.values()]
    if not any(sizes):
        return None
    meaning = (
        "Share of lists held whose answers one known prompt gives, from starts that do not know "
        "it. Where it is low, the optimiser is the limit."
    )
    return planted_control("planted answers", sizes, meaning)


def slopes(measured: Sequence[Measured]) -> list[Estimated]:
    """k50 against prompt length, of each model, list and kind with two lengths or more."""
    groups: dict[str, list[Measured]] = {}
    for each in measured:
        groups.setdefault(each.group, []).append(each)
    found = []
    for name, members in groups.items():
        if len(members) > 1 and len(members[0].success.sizes) > 1 < members[0].success.problems:
            lines = K50Lines(
                [each.prompt_tokens for each in members], [each.success for each in members]
            )
            slope = lines.slope(with_intercept)
            found.append(Estimated.of(f"pairs a prompt token (slope of k50), {name}", slope))
    return found


def drawings(measured: Sequence[Measured]) -> dict[str, Curves]:
    """Success against size, of each model, list and kind."""
    drawn = {}
    for number, group in enumerate(dict.fromkeys(each.group for each in measured), 1):
        members = [each for each in measured if each.group == group]
        shown = [
            Curve.of(
                f"{each.prompt_tokens} tokens", "found", each.success.sizes, each.success.shares
            )
            for each in members
        ]
        drawn[f"sweep-{number}"] = Curves(
            name=group, below="pairs", beside="share of lists held", curves=shown
        )
    return drawn
