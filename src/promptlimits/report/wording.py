"""Numbers and sentences, worded alike in the terminal and on the page.

A ceiling is proved, a floor is found: the two words stay apart everywhere. A ceiling speaks
about lists of random answers from the answer set, all of them but a share that is always
named, and never about the facts of one list.
"""

from __future__ import annotations

import math
import unicodedata
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from promptlimits.record.parts import (
    Baseline,
    Bracket,
    Ceiling,
    Control,
    Floor,
    NoControl,
    Task,
)
from promptlimits.record.record import Record

_MOST_DIGITS = 15


def count(number: int) -> str:
    """A whole number with thousands separated: 2,330."""
    return f"{number:,}"


def plural(number: int, word: str) -> str:
    """A count and its noun: "1 prompt token", "2 prompt tokens"."""
    return f"{count(number)} {word}{'' if number == 1 else 's'}"


def bits_down(bits: float) -> str:
    """Bits of a floor: one decimal, never rounded up."""
    return f"{Decimal(repr(bits)).quantize(Decimal('0.1'), ROUND_FLOOR):,}"


def ratio_down(ratio: float) -> str:
    """A share of a floor: three significant digits, never rounded up."""
    exact = Decimal(repr(ratio))
    if not exact:
        return "0"
    return f"{exact.quantize(Decimal((0, (1,), exact.adjusted() - 2)), ROUND_FLOOR):,f}"


def bits_up(bits: float) -> str:
    """Bits of a ceiling: one decimal, never rounded down."""
    return f"{Decimal(repr(bits)).quantize(Decimal('0.1'), ROUND_CEILING):,}"


def big_number(digits: str) -> str:
    """A whole number given as digits, with a power of ten where digits stop helping."""
    digits = digits.lstrip("0") or "0"
    if len(digits) <= _MOST_DIGITS:
        return count(int(digits))
    return f"about {digits[0]}.{digits[1]}e{len(digits) - 1}"


def duration(seconds: float) -> str:
    """Seconds as people say them: "12.1 s", "3 min 30 s", "1 h 05 min".

    A narrow table may break it between two units, never between a number and its unit.
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest:02d}\u00a0s"
    return f"{minutes // 60}\u00a0h {minutes % 60:02d}\u00a0min"


def where_seconds_went(record: Record) -> str:
    """The share of each stage in the seconds: "78% training, 9% verification"."""
    shares = record.seconds_by_stage.shares.items()
    return ", ".join(f"{share:.0%} {stage}" for stage, share in shares)


def clean(text: str) -> str:
    """Text that cannot act on a terminal or break a file: controls become visible symbols.

    Line breaks and tabs are shown too, so that a decoded answer with a stray one is not
    taken for an exact answer. Direction overrides and lone surrogates become a mark.
    """
    return "".join(_visible(character) for character in text)


def clean_code(text: str) -> str:
    """Several lines of code made harmless; their line breaks stay."""
    return "\n".join(clean(line) for line in text.split("\n"))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cc":
        code = ord(character)
        return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
    if category == "Cs" or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
        return "\ufffd"
    return "\u23ce" if category in {"Zl", "Zp"} else character


def clip(text: str, *, most: int = 160) -> str:
    """Text short enough for a table cell; what was left out is counted."""
    if len(text) <= most:
        return text
    return f"{text[:most]}\u2026 ({count(len(text))} characters)"


def prompt_name(kind: str, prompt_tokens: int) -> str:
    """A prompt by kind and length: "2 prompt tokens", "prefix of 2 tokens"."""
    if kind == "prefix":
        return f"prefix of {plural(prompt_tokens, 'token')}"
    return plural(prompt_tokens, "prompt token")


def has_soft(record: Record) -> bool:
    """Whether any of its prompts are soft prompts."""
    return any(each.kind == "soft" for each in record.brackets)


def subject(record: Record) -> str:
    """What the record is about: "a soft prompt", "a prefix", or either."""
    kinds = [("a soft prompt", has_soft(record)), ("a prefix", has_prefix(record))]
    return " or ".join(name for name, is_there in kinds if is_there)


def has_prefix(record: Record) -> bool:
    """Whether prefixes stand in the record, beside soft prompts or alone."""
    return any(bracket.kind == "prefix" for bracket in record.brackets)


def noun(task: Task) -> str:
    """What one calls what is held: "capitals" for the built-in list, "tokens" of a text."""
    if task.text_tokens is not None:
        return "tokens of the text"
    return "capitals" if task.name == "capitals" else "pairs"


def unit(task: Task) -> str:
    """What a floor counts: tokens of a text, pairs of a list."""
    return "pairs" if task.text_tokens is None else "tokens"


def all_of(task: Task) -> str:
    """All that is to be held: "246 capitals", "48 tokens of the text"."""
    if task.text_tokens is None:
        return plural(task.pairs, noun(task).removesuffix("s"))
    return f"{plural(task.text_tokens, 'token')} of the text"


def baseline_detail(row: Baseline) -> str:
    """What was put in front of a baseline's question: "246 shots, 1,900 tokens"."""
    details = []
    if row.shots:
        details.append(plural(row.shots, "shot"))
    if row.context_tokens:
        details.append(plural(row.context_tokens, "token"))
    return ", ".join(details)


def share_of_lists(*ceilings: Ceiling) -> str:
    """The share of random lists that may pass the ceiling: "1 in 1,048,576".

    Of several ceilings it is the largest share, which is true of them all.
    """
    power = math.floor(-max(ceiling.share_log2 for ceiling in ceilings))
    return f"1 in {count(2**power)}" if power <= 40 else f"1 in 2^{power}"


def chosen_from(bracket: Bracket) -> int | None:
    """Length of the lists that the ceiling is about, where that is above the ceiling.

    None where the ceiling is about whole lists longer than itself.
    """
    most, pool = bracket.ceiling.pairs, bracket.ceiling.pool
    return pool if most is not None and pool > most else None


def floor_sentence(record: Record, bracket: Bracket) -> str:
    """What was found at this prompt length, in plain words."""
    task = record.task
    if not bracket.searched:
        return not_searched(bracket)
    if not bracket.floor.held:
        return not_held(task) + below_shorter(record, bracket)
    stock = "stock PEFT" if "PEFT" in bracket.floor.confirmed_by else bracket.floor.confirmed_by
    how = f"found, confirmed by {stock}" if stock else "found"
    return f"{held_of(task, bracket.floor)} ({how}){below_shorter(record, bracket)}"


def held_of(task: Task, floor: Floor) -> str:
    """What a prompt holds of what there is: "40 of 246 capitals held exactly"."""
    if task.text_tokens is not None:
        return f"{count(floor.held)} of {all_of(task)} held exactly, from the first one on"
    return f"{count(floor.pairs)} of {all_of(task)} held exactly"


def not_searched(bracket: Bracket) -> str:
    """That there was no search to speak of, which says nothing about the prompt."""
    steps = sum(attempt.steps for attempt in bracket.search)
    return f"NOT SEARCHED: the budget was used up after {plural(steps, 'training step')}"


def below_shorter(record: Record, bracket: Bracket) -> str:
    """A clause where a search held less than a shorter prompt of the same kind: it is the limit."""
    shorter = [
        each
        for each in record.brackets
        if each.kind == bracket.kind and each.prompt_tokens < bracket.prompt_tokens
    ]
    best = max(shorter, key=lambda each: each.floor.held, default=None)
    if best is None or not bracket.searched or best.floor.held <= bracket.floor.held:
        return ""
    return (
        f", fewer than the {count(best.floor.held)} of "
        f"{prompt_name(best.kind, best.prompt_tokens)}: the search found no prompt of this "
        "length that keeps them"
    )


def baseline_note(row: Baseline) -> str:
    """What else a reader must know of a baseline; nothing where there is nothing."""
    if row.pairs is None:
        asked = f" after {count(row.asked)} of {plural(row.of, 'pair')}" if row.asked else ""
        return f"not measured, the budget was used up{asked}"
    return row.note


def not_held(task: Task) -> str:
    """That nothing was confirmed; of a text, not even its first token."""
    some_of = "any of" if task.text_tokens is None else "the first of"
    return f"no prompt was confirmed to hold {some_of} the {all_of(task)}"


def ceiling_claim(record: Record, bracket: Bracket) -> str:
    """The theorem at this prompt length, without the word for its status."""
    ceiling, pool = bracket.ceiling, chosen_from(bracket)
    if ceiling.pairs is None and record.task.text_tokens is not None:
        return "the theorem is about lists of random answers and gives no ceiling for one text"
    if ceiling.pairs is None:
        return "the theorem gives no ceiling, for there is a single answer to give"
    most, share = count(ceiling.pairs), share_of_lists(ceiling)
    if pool is None:
        return (
            f"of random lists of more than {most} answers from this set, at most {share} can be "
            "answered in full by any prompt of this size"
        )
    return (
        f"of random lists of {count(pool)} answers from this set, at most {share} can have more "
        f"than {most} right behind any prompt of this size"
    )


def ceiling_sentence(record: Record, bracket: Bracket) -> str:
    """What was proved at this prompt length, in plain words."""
    claim = ceiling_claim(record, bracket)
    return claim if bracket.ceiling.pairs is None else f"{claim} (proved)"


def longer_lists(record: Record) -> str:
    """The ceilings of a record in the fewest words that are true; nothing without a ceiling."""
    ceilings = [each.ceiling for each in record.brackets if each.ceiling.pairs is not None]
    if not ceilings:
        return ""
    size = "kind and length" if has_prefix(record) else "length"
    return (
        f"random lists longer than this cannot be answered by any prompt of that {size} "
        f"(proved, but for at most {share_of_lists(*ceilings)} of them)"
    )


def bits_name(task: Task) -> str:
    """What the bits of a floor are called.

    Only random answers take as many bits as the list has; facts that a prompt elicits take fewer.
    """
    return "bits" if task.answers_random else "list bits"


def summary_line(record: Record, bracket: Bracket) -> str:
    """Both limits at one prompt length as one line of plain words."""
    return (
        f"{prompt_name(bracket.kind, bracket.prompt_tokens)}: "
        f"{floor_sentence(record, bracket)}; {ceiling_sentence(record, bracket)}"
    )


def control_sentence(control: Control | NoControl | None, *, of_text: bool = False) -> str:
    """The planted control, or why there is none, in plain words; nothing where none is due."""
    what = "tokens of what a known prompt writes" if of_text else "answers of a known prompt"
    if control is None:
        return ""
    if isinstance(control, NoControl):
        return f"no planted control: {control.conclusion}"
    if not control.finished:
        return f"planted control (measured): {control.conclusion}"
    return (
        f"planted control (measured): {count(control.recovered)} of {count(control.size)} {what} "
        f"recovered in {plural(control.steps, 'step')}; {control.conclusion}"
    )


def control_detail(control: Control | NoControl | None, *, of_text: bool = False) -> str:
    """How diverse the planted answers are; nothing where there are none."""
    if not isinstance(control, Control) or not control.distinct_answers:
        return ""
    if of_text:
        return (
            f"Planted text: {plural(control.distinct_answers, 'distinct token')} "
            f"({count(control.list_distinct_answers)} in as much of the real one), entropy "
            f"{bits_down(control.answer_entropy_bits)} bits, {count(control.answered_unprompted)} "
            "of them also written without a prompt"
        )
    return (
        f"Planted answers: {count(control.distinct_answers)} distinct among "
        f"{plural(control.size, 'key')} ({count(control.list_distinct_answers)} among as many "
        f"pairs of the list), entropy {bits_down(control.answer_entropy_bits)} bits, "
        f"{count(control.answered_unprompted)} of them also said without a prompt"
    )
