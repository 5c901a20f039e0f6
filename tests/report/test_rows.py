import dataclasses

import pytest

from promptlimits.report.record import parse_record
from promptlimits.report.rows import baseline_rows, rows


def test_one_row_per_length(record):
    short, long = rows(record)
    assert (short.prompt_tokens, short.floor_pairs, short.ceiling_pairs) == (1, 40, 2329)
    assert (long.prompt_tokens, long.floor_pairs, long.ceiling_pairs) == (2, 71, 4655)
    assert short.floor_bits == pytest.approx(316.99, abs=0.01)
    assert long.bits_per_prompt_token == pytest.approx(long.floor_bits / 2)
    assert short.ceiling_bits == pytest.approx(18456.89, abs=0.01)
    assert short.seconds == 100.25
    assert short.stopped_because == "the time given was used up"


def test_json_and_parsed_records_give_the_same_rows(record):
    assert rows(record) == rows(parse_record(record))
    assert baseline_rows(record) == baseline_rows(parse_record(record))


def test_baselines(record):
    nothing, context = baseline_rows(record)
    assert (nothing.name, nothing.pairs, nothing.of, nothing.shots) == ("no prompt", 3, 246, None)
    assert (context.pairs, context.shots, context.context_tokens) == (200, 246, 1900)


def test_rows_are_frozen(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        rows(record)[0].floor_pairs = 41
