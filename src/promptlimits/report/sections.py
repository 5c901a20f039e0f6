"""What the sections of the page say, as plain values; the template only lays them out."""

from __future__ import annotations

import functools
import json
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from promptlimits.base.errors import quoted
from promptlimits.record.parts import Answer, Bracket, Verdict
from promptlimits.record.record import Record
from promptlimits.report import wording

_KINDS: Final = {Verdict.HELD: "held", Verdict.NOT_COUNTED: "uncounted", Verdict.WRONG: "wrong"}


@dataclass(frozen=True, kw_only=True)
class PairCell:
    """What one prompt decoded for one pair."""

    kind: str  # "held", "uncounted", "wrong" or "untried"
    decoded: str = ""  # the decoded text where it is wrong, clipped
    fault: str = ""  # why it is wrong, where that was recorded


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """One pair over all prompt lengths."""

    key: str  # the key, clipped
    value: str  # the answer, clipped
    unprompted: bool  # whether the model gives the answer without a prompt
    cells: tuple[PairCell, ...]  # one per prompt length

    @property
    def classes(self) -> str:
        """Every verdict among the cells, for the filters of the page."""
        return " ".join(sorted({cell.kind for cell in self.cells}))


def pair_rows(record: Record) -> tuple[PairRow, ...]:
    """Every pair that some prompt was asked, in the order of the list."""
    asked = [bracket.floor.answers for bracket in record.brackets if bracket.floor.answers]
    by_pair = [_by_pair(answers) for answers in asked]
    order = dict.fromkeys(pair for answers in by_pair for pair in answers)
    found = []
    for pair in order:
        key, value, _ = pair
        here = [answers.get(pair) for answers in by_pair]
        found.append(
            PairRow(
                key=wording.clip(key),
                value=wording.clip(value),
                unprompted=any(answer.unprompted for answer in here if answer),
                cells=tuple(map(_cell, here)),
            )
        )
    return tuple(found)


def _by_pair(answers: Iterable[Answer]) -> dict[tuple[str, str, int], Answer]:
    """Answers by pair; pairs of random tokens may look alike as text, so they are numbered."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for answer in answers:
        alike = (answer.key, answer.value)
        found[(*alike, seen[alike])] = answer
        seen[alike] += 1
    return found


def _cell(answer: Answer | None) -> PairCell:
    if answer is None:
        return PairCell(kind="untried")
    if answer.exact:
        return PairCell(kind=_KINDS[answer.verdict])
    return PairCell(kind="wrong", decoded=wording.clip(answer.decoded), fault=answer.fault)


def load_code(record: Record) -> str:
    """Python that answers a held pair with stock PEFT, or nothing without a witness.

    The pair is chosen by its key; one of random tokens by its place, for no text need give it.
    """
    best = _best(record)
    if best is None:
        return ""
    held = [answer for answer in best.floor.answers if answer.verdict is Verdict.HELD]
    # The first one that fits a line; the shortest where none does.
    shown = next((each for each in held if len(each.key) + len(each.value) <= 60), None)
    if shown is None and held:
        shown = min(held, key=lambda answer: len(answer.key) + len(answer.value))
    by_key = shown is not None and not record.task.answers_random
    return resource("load.py.txt").format(
        model=ascii(record.model.path),
        dtype=_dtype(record.model.compute_dtype),
        adapter=ascii(best.floor.witness),
        wanted=f'pair["key"] == {shown.key!a}' if shown and by_key else 'answer["counted"]',
        expected=f"  # {wording.clip(shown.value)!a} True" if shown and by_key else "",
    )


def verify_code(record: Record) -> str:
    """Commands that decode every pair of the best prompt again: ours, and stock tools alone."""
    best = _best(record)
    if best is None or best.floor.witness is None:
        return ""
    witness, model = best.floor.witness, _shell_path(record.model.path)
    return (
        f"promptlimits verify {quoted(witness)} --model {model}\n"
        f"python {quoted(f'{witness}/replay.py')} --model {model}"
    )


def _shell_path(path: str) -> str:
    """A path as a shell reads it; "~" works only outside of quotes."""
    home, slash, rest = path.partition("/")
    return f"~/{quoted(rest)}" if (home, slash) == ("~", "/") else quoted(path)


def _best(record: Record) -> Bracket | None:
    """The bracket whose prompt holds the most."""
    confirmed = [bracket for bracket in record.brackets if bracket.floor.witness]
    return max(confirmed, key=lambda bracket: bracket.floor.held, default=None)


def _dtype(name: str) -> str:
    short = name.removeprefix("torch.")
    return f"torch.{short}" if short.isidentifier() else '"auto"'


def uncounted(bracket: Bracket) -> int:
    """Pairs that are exact without credit to the prompt."""
    return sum(answer.verdict is Verdict.NOT_COUNTED for answer in bracket.floor.answers)


def held_unprompted(bracket: Bracket) -> int:
    """Counted pairs that the model also answers without a prompt."""
    return sum(
        answer.verdict is Verdict.HELD and answer.unprompted for answer in bracket.floor.answers
    )


def between(record: Record, bracket: Bracket) -> str:
    """What is known of the gap between the two limits, as a sentence."""
    floor, ceiling = bracket.floor.pairs, bracket.ceiling.pairs
    if not bracket.searched:
        return "Nothing was searched for, so there is no floor."
    if ceiling is None:
        return "There is no ceiling to set beside the floor."
    # A record of random answers with such a floor does not parse.
    if floor > ceiling:
        return (
            "The floor is above the ceiling: the model predicts such answers, so the ceiling "
            "for random answers does not limit them."
        )
    if floor == ceiling:
        same = "The two numbers are the same, but the ceiling is about random answers only."
        return "The two limits meet." if record.task.answers_random else same
    factor = f", a factor of {ceiling / floor:,.3g}" if floor else ""
    gap = f"{wording.count(floor)} and {wording.count(ceiling)}"
    return f"What lies between {gap} is not known{factor}."


def remedies(bracket: Bracket) -> tuple[tuple[str, str], ...]:
    """Each outcome with its remedy, once."""
    return tuple(
        dict.fromkeys((each.outcome, each.remedy) for each in bracket.search if each.remedy)
    )


def endings(record: Record) -> list[tuple[str, str]]:
    """What ended the search, each reason once with the prompt lengths it ended."""
    reasons: dict[str, list[Bracket]] = {}
    for bracket in record.brackets:
        if bracket.stopped_because:
            reasons.setdefault(bracket.stopped_because, []).append(bracket)
    return [(_lengths(members), reason.rstrip(".")) for reason, members in reasons.items()]


def _lengths(brackets: list[Bracket]) -> str:
    """Lengths of soft prompts, then of prefixes: "1, 2 prompt tokens, prefix of 1 token"."""
    soft = [each.prompt_tokens for each in brackets if each.kind == "soft"]
    names = [*map(wording.count, soft[:-1]), *(wording.prompt_name("soft", n) for n in soft[-1:])]
    wide = [each for each in brackets if each.kind == "prefix"]
    return ", ".join([*names, *(wording.prompt_name("prefix", n.prompt_tokens) for n in wide)])


def witnesses(record: Record) -> tuple[str, ...]:
    """Folders of the found prompts."""
    return tuple(each.floor.witness for each in record.brackets if each.floor.witness)


def pairs_sentence(record: Record) -> str:
    """How many pairs of each verdict there are, at each prompt length."""
    asked = [bracket for bracket in record.brackets if bracket.floor.answers]
    parts = []
    for bracket in asked:
        verdicts = [answer.verdict for answer in bracket.floor.answers]
        wrong, idle = verdicts.count(Verdict.WRONG), verdicts.count(Verdict.NOT_COUNTED)
        parts.append(
            f"{wording.prompt_name(bracket.kind, bracket.prompt_tokens)}: "
            f"{wording.count(verdicts.count(Verdict.HELD))} held, {wording.count(wrong)} wrong, "
            f"{wording.count(idle)} not counted"
        )
    return "; ".join(parts) + "."


def not_decoded(record: Record, shown: int) -> str:
    """What became of pairs that no prompt on disk was asked, or nothing if there are none."""
    rest = record.task.pairs - shown
    if rest <= 0:
        return ""
    were = "was" if rest == 1 else "were"
    return (
        f"The other {wording.plural(rest, 'pair')} of the list {were} not put to the test: "
        f"the search does not claim {'it' if rest == 1 else 'them'}."
    )


def assumption_groups(record: Record) -> list[dict[str, Any]]:
    """Ceilings with the same assumptions and source stand together."""
    groups: dict[tuple[tuple[str, ...], str], list[Bracket]] = {}
    for bracket in record.brackets:
        key = (bracket.ceiling.assumptions, bracket.ceiling.source)
        groups.setdefault(key, []).append(bracket)
    return [
        {
            "title": _lengths(members),
            "brackets": members,
            "assumptions": assumptions,
            "source": source.rstrip("."),
        }
        for (assumptions, source), members in groups.items()
    ]


def versions(record: Record) -> tuple[tuple[str, str], ...]:
    """Facts of the installation by name; what is not known is left out."""
    return tuple(
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in record.versions.items()
        if value is not None
    )


def command(line: str) -> str:
    """A command with one option a line; as it is where it does not split."""
    if "$'" in line:  # bytes that are no text, as a shell reads them and shlex does not
        return line
    try:
        words = shlex.split(line)
    except ValueError:
        return line
    shown = ""
    for word in words:
        breaks = " \\\n  " if word.startswith("--") else " "
        shown += (breaks if shown else "") + shlex.quote(word)
    return shown


@functools.cache
def resource(name: str) -> str:
    """Text of a file that is laid beside the template."""
    return (resources.files("promptlimits.report") / "templates" / name).read_text("utf-8")
