"""The terminal's view of a bracket record; printing it is the command line's work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from promptlimits.record.parts import Baseline, Bracket
from promptlimits.record.record import Record
from promptlimits.report.wording import (
    all_of,
    baseline_detail,
    bits_down,
    bits_name,
    clean,
    control_sentence,
    count,
    has_prefix,
    longer_lists,
    plural,
    ratio_down,
    summary_line,
    unit,
)


def summary_lines(record: Record) -> tuple[str, ...]:
    """One line of plain words per prompt length, shortest first, each with its control's."""
    of_text = record.task.text_tokens is not None
    lines = [
        line
        for bracket in record.brackets
        for line in (
            summary_line(record, bracket),
            control_sentence(bracket.control, of_text=of_text),
        )
    ]
    return tuple(clean(line) for line in lines if line)


@dataclass(frozen=True)
class BracketTable:
    """The table of floors, ceilings and baselines of a record, as rich draws it."""

    record: Record

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw with the characters that the console can show."""
        yield _table(self.record, ascii_only=options.ascii_only)


def _table(record: Record, *, ascii_only: bool) -> Table:
    def text(value: str, style: str = "") -> Text:
        shown = clean(value)
        if ascii_only:
            shown = shown.encode("ascii", "backslashreplace").decode("ascii")
        return Text(shown, style=style, overflow="fold")

    title = f"{record.model.name}: {all_of(record.task)}"
    footnote = longer_lists(record)
    mixed, is_text = has_prefix(record), record.task.text_tokens is not None
    table = Table(
        title=text(title, "bold"),
        title_justify="left",
        caption=text(f"* {footnote}; {_never(record)}") if footnote else None,
        caption_justify="left",
        # One column more than fits 80 with its edges padded: the last character would be cut.
        pad_edge=not mixed,
        box=box.ASCII2 if ascii_only else box.SIMPLE_HEAD,
    )
    # Wide enough for "prefix, 16" beside long names of baselines.
    table.add_column(
        "prompt,\ntokens" if mixed or is_text else "prompt",
        vertical="bottom",
        min_width=10 if mixed else None,
    )
    columns = _columns(record)
    for header, _ in columns:
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    for each in record.brackets:
        name = f"{each.kind}, {each.prompt_tokens}"
        if not (mixed or is_text):
            name = plural(each.prompt_tokens, "token")
        table.add_row(text(name), *(text(cell(each)) for _, cell in columns))
    if record.baselines:
        table.add_section()
    for baseline in record.baselines:
        cells = (baseline_label(baseline), _measured(baseline, is_text=is_text))
        table.add_row(*map(text, cells), *["-"] * (len(table.columns) - len(cells)))
    return table


def _columns(record: Record) -> tuple[tuple[str, Callable[[Bracket], str]], ...]:
    """Headers and cells of the numbers; each number carries its own status word in its cell.

    Where prefixes stand in the table, the bits are held against those that are stored: a token of
    theirs is wider than a soft one. Of a text the unit is the token, from the first one on.
    """
    name, unit_of = bits_name(record.task), unit(record.task)
    is_text = record.task.text_tokens is not None
    first = (
        (f"floor:\n{unit_of} held", floor_cell),
        ("ceiling for\nrandom lists" + ("" if is_text else "*"), _ceiling_cell),
    )
    stored = ("stored\nbits", lambda each: count(each.stored_bits))
    seconds = ("seconds", lambda each: f"{each.seconds:,.1f}")
    if is_text:
        rate = _found(lambda each: ratio_down(each.floor.held / each.prompt_tokens))
        return (*first, ("tokens per\nprompt token", rate), stored, seconds)
    if has_prefix(record):
        bits = _found(lambda each: bits_down(each.floor.bits))
        rate = _found(lambda each: ratio_down(each.floor.bits_per_stored_bit))
        return (*first, (f"{name}\nheld", bits), stored, ("per stored\nbit", rate))
    rate = _found(lambda each: bits_down(each.floor.bits_per_prompt_token))
    return (*first, (f"{name} per\nprompt token", rate), seconds)


def _found(said: Callable[[Bracket], str]) -> Callable[[Bracket], str]:
    """A number of a floor; a dash where nothing was searched for."""
    return lambda each: said(each) if each.searched else "-"


def _never(record: Record) -> str:
    return "never about facts" if record.task.answers_random else "never about these facts"


def _ceiling_cell(bracket: Bracket) -> str:
    most = bracket.ceiling.pairs
    return "none" if most is None else f"{count(most)} proved"


def floor_cell(bracket: Bracket) -> str:
    """What was found, with its status word: what was not searched is no zero."""
    return f"{count(bracket.floor.held)} found" if bracket.searched else "not searched"


def _measured(row: Baseline, *, is_text: bool) -> str:
    """Pairs of a list, or tokens of a text, that came without a trained prompt."""
    came = row.tokens if is_text else row.pairs
    return "not measured" if came is None else f"{count(came)} measured"


def baseline_label(row: Baseline) -> str:
    """A baseline's name with what was put in front of the question."""
    detail = baseline_detail(row)
    return f"{row.name} ({detail})" if detail else row.name
