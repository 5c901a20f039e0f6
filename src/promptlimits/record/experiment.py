"""The record of one experiment: a claim of a paper, and what was proved, found and estimated of it.

The three sorts have types of their own. *Proved* is what a theorem says of the case. *Found* is a
count of things that are there, such as prompts whose error was computed. *Estimated* is what
statistics infer from such counts about problems that were not tried, with an interval.
"""

from __future__ import annotations

from typing import Any, Literal

from promptlimits.base.strict import Count, Many, Positive, Strict


class Interval(Strict):
    """An estimate; None for an end, or a value, that the data do not limit."""

    value: float | None
    low: float | None
    high: float | None
    way: str  # how the ends were made, with their confidence

    @property
    def in_words(self) -> str:
        """The value, and the ends in brackets."""
        if self.value is None and self.low is None:
            return "nothing is known of it"
        value = "unknown" if self.value is None else f"{self.value:.3g}"
        low = "no limit" if self.low is None else f"{self.low:.3g}"
        high = "no limit" if self.high is None else f"{self.high:.3g}"
        return f"{value} ({low} to {high})"


class Proved(Strict):
    """A number that a theorem gives."""

    name: str
    value: float  # rounded so that the sentence stays true
    direction: Literal["at most", "at least", "exactly"]
    source: str  # the theorem
    assumes: str = ""  # what it rests on, if that is not checked here


class Found(Strict):
    """A count of things that were found, of those that were tried."""

    name: str
    count: Count
    of: Positive


class Estimated(Interval):
    """An estimate and its name."""

    name: str

    @classmethod
    def of(cls, name: str, interval: Interval) -> Estimated:
        """An interval under a name."""
        return cls(name=name, **interval.model_dump(include=set(Interval.model_fields)))


class NotMeasured(Strict):
    """What the claim speaks of and this run does not."""

    name: str
    why: str


class Control(Strict):
    """What the optimiser does where a solution is known to exist."""

    name: str
    solved: Count
    of: Positive
    share: Interval  # over all of them
    least: float  # the smallest share of one cell
    meaning: str


class Figure(Strict):
    """A drawing, under its name without an ending; SVG, PDF and PNG lie beside the record."""

    file: str
    title: str
    description: str  # every number of it in words


class Findings(Strict):
    """What an experiment says, whatever made it."""

    verdict: str
    agrees: bool | None  # whether what was measured agrees with what holds; None if undecided
    measured: Estimated  # the one number that the claim is about
    proved: Many[Proved] = ()
    found: Many[Found] = ()
    estimated: Many[Estimated] = ()
    not_measured: Many[NotMeasured] = ()
    control: Control | None = None


class Experiment(Findings):
    """A recipe, run."""

    schema_version: Literal[1] = 1
    name: str
    claim: str  # in a sentence
    paper: str  # where it stands
    published: str  # as it is printed
    holds: str  # what of it is proved
    varied: str
    spec: dict[str, Any]  # what was run: sizes, seeds, steps
    cells: Many[dict[str, Any]]
    figures: Many[Figure]
    command: str
    provenance: dict[str, Any]
