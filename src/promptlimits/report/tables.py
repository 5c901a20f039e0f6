"""The terminal's view of a bracket record; printing it is the command line's work."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from promptlimits.base.files import JsonObject
from promptlimits.report.record import Record
from promptlimits.report.rows import BaselineRow, BracketRow, as_record, baseline_rows, rows
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
)


def summary_lines(record: JsonObject | Record) -> tuple[str, ...]:
    """One line of plain words per prompt length, shortest first, each with its control's."""
    parsed = as_record(record)
    of_text = parsed.task.text_tokens is not None
    lines = [
        line
        for bracket in parsed.brackets
        for line in (
            summary_line(parsed, bracket),
            control_sentence(bracket.control, of_text=of_text),
        )
    ]
    return tuple(clean(line) for line in lines if line)


def bracket_table(record: JsonObject | Record) -> BracketTable:
    """The table of floors, ceilings and baselines, to be printed by rich."""
    return BracketTable(record=as_record(record))


@dataclass(frozen=True, kw_only=True)
class BracketTable:
    """A bracket record as rich draws it.

    Attributes:
        record: What is drawn.
    """

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
    table = Table(
        title=text(title, "bold"),
        title_justify="left",
        caption=text(f"* {footnote}; {_never(record)}") if footnote else None,
        caption_justify="left",
        box=box.ASCII2 if ascii_only else box.SIMPLE_HEAD,
    )
    mixed, is_text = has_prefix(record), record.task.text_tokens is not None
    # Wide enough for "prefix, 16" beside long names of baselines.
    table.add_column(
        "prompt,\ntokens" if mixed or is_text else "prompt",
        vertical="bottom",
        min_width=10 if mixed else None,
    )
    headers = _text_headers if is_text else _storage_headers if mixed else _number_headers
    cells_of = _text_cells if is_text else _storage_cells if mixed else _bracket_cells
    for header in headers(record):
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    for row in rows(record):
        table.add_row(*(text(cell) for cell in cells_of(row)))
    if record.baselines:
        table.add_section()
    for baseline in baseline_rows(record):
        cells = (baseline_label(baseline), _measured(baseline, is_text=is_text))
        table.add_row(*map(text, cells), *["-"] * (len(table.columns) - len(cells)))
    return table


def _number_headers(record: Record) -> tuple[str, ...]:
    """Headers of the numbers; each number carries its own status word in its cell."""
    return (
        "floor:\npairs held",
        "ceiling for\nrandom lists*",
        f"{bits_name(record.task)} per\nprompt token",
        "seconds",
    )


def _storage_headers(record: Record) -> tuple[str, ...]:
    """Headers where prefixes stand in the table: a token of theirs is wider than a soft one."""
    name = bits_name(record.task)
    return (
        "floor:\npairs held",
        "ceiling for\nrandom lists*",
        f"{name}\nheld",
        "stored\nbits",
        "per stored\nbit",
    )


def _text_headers(_: Record) -> tuple[str, ...]:
    """Headers where one text is to be held: its unit is the token, from the first one on."""
    return (
        "floor:\ntokens held",
        "ceiling for\nrandom lists",
        "tokens per\nprompt token",
        "stored\nbits",
        "seconds",
    )


def _text_cells(row: BracketRow) -> tuple[str, ...]:
    return (
        f"{row.kind}, {row.prompt_tokens}",
        floor_cell(row),
        "none" if row.ceiling_pairs is None else f"{count(row.ceiling_pairs)} proved",
        ratio_down(row.floor_held / row.prompt_tokens) if row.searched else "-",
        count(row.stored_bits),
        f"{row.seconds:,.1f}",
    )


def _never(record: Record) -> str:
    return "never about facts" if record.task.answers_random else "never about these facts"


def _bracket_cells(row: BracketRow) -> tuple[str, ...]:
    return (
        plural(row.prompt_tokens, "token"),
        floor_cell(row),
        "none" if row.ceiling_pairs is None else f"{count(row.ceiling_pairs)} proved",
        bits_down(row.bits_per_prompt_token) if row.searched else "-",
        f"{row.seconds:,.1f}",
    )


def _storage_cells(row: BracketRow) -> tuple[str, ...]:
    return (
        f"{row.kind}, {row.prompt_tokens}",
        floor_cell(row),
        "none" if row.ceiling_pairs is None else f"{count(row.ceiling_pairs)} proved",
        bits_down(row.floor_bits) if row.searched else "-",
        count(row.stored_bits),
        ratio_down(row.bits_per_stored_bit) if row.searched else "-",
    )


def floor_cell(row: BracketRow) -> str:
    """What was found, with its status word: what was not searched is no zero."""
    return f"{count(row.floor_held)} found" if row.searched else "not searched"


def _measured(row: BaselineRow, *, is_text: bool) -> str:
    """Pairs of a list, or tokens of a text, that came without a trained prompt."""
    came = row.tokens if is_text else row.pairs
    return "not measured" if came is None else f"{count(came)} measured"


def baseline_label(row: BaselineRow) -> str:
    """A baseline's name with what was put in front of the question."""
    detail = baseline_detail(row)
    return f"{row.name} ({detail})" if detail else row.name
