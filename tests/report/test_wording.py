import pytest
from tests.report.views import parsed, render, summary_lines

from promptlimits.base.errors import RunFailed
from promptlimits.report import wording


@pytest.mark.parametrize(
    ("bits", "down", "up"),
    [(316.99, "316.9", "317.0"), (18431.91, "18,431.9", "18,432.0"), (8.2, "8.2", "8.2")],
)
def test_bits_are_rounded_in_the_safe_direction(bits, down, up):
    assert wording.bits_down(bits) == down
    assert wording.bits_up(bits) == up


@pytest.mark.parametrize(
    ("digits", "shown"),
    [("243", "243"), ("49152", "49,152"), ("0", "0"), ("118747255799808123", "about 1.1e17")],
)
def test_answer_sets_of_any_size(digits, shown):
    assert wording.big_number(digits) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (12.14, "12.1 s"), (59.97, "1 min 00 s"), (210.3, "3 min 30 s"),
     (3599.9, "1 h 00 min"), (7384, "2 h 03 min")],
)  # fmt: skip
def test_durations(seconds, shown):
    assert wording.duration(seconds).replace("\u00a0", " ") == shown
    # A break may fall between two units, never between a number and its unit.
    assert wording.duration(seconds).count(" ") == shown.count(" ") // 2


def test_plurals():
    assert wording.plural(1, "prompt token") == "1 prompt token"
    assert wording.plural(2000, "token") == "2,000 tokens"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Paris", "Paris"),
        ("a\x1b[31mb", "a\u241b[31mb"),
        ("Paris\n\nParis", "Paris\u240a\u240aParis"),
        ("tab\tdel\x7fnel\x85", "tab\u2409del\u2421nel\ufffd"),
        ("over\u202eride\u2066", "over\ufffdride\ufffd"),
        ("lone\ud800", "lone\ufffd"),
        ("para\u2029graph", "para\u23cegraph"),
        ("\U0001f600 \u05d0\u05d1", "\U0001f600 \u05d0\u05d1"),
    ],
)
def test_what_could_act_becomes_visible(text, shown):
    assert wording.clean(text) == shown


def test_lines_of_code_stay_lines():
    assert wording.clean_code("a\nb\x00") == "a\nb\u2400"


def test_clipping_says_what_is_missing():
    assert wording.clip("x" * 160) == "x" * 160
    assert wording.clip("x" * 10_000) == "x" * 160 + "\u2026 (10,000 characters)"


def test_the_line_says_found_and_proved_and_random(record):
    shown = parsed(record)
    assert wording.summary_line(shown, shown.brackets[0]) == (
        "1 prompt token: 40 of 246 capitals held exactly (found, confirmed by stock PEFT); "
        "of random lists of more than 2,329 answers from this set, at most 1 in 1,048,576 can be "
        "answered in full by any prompt of this size (proved)"
    )


@pytest.mark.parametrize("pool", [2330, 5000])
def test_the_line_of_a_list_longer_than_its_ceiling_names_the_lists_length(record, pool):
    record["brackets"][0]["ceiling"]["pool"] = pool
    shown = parsed(record)
    assert wording.ceiling_sentence(shown, shown.brackets[0]) == (
        f"of random lists of {pool:,} answers from this set, at most 1 in 1,048,576 can have more "
        "than 2,329 right behind any prompt of this size (proved)"
    )


@pytest.mark.parametrize("pool", [0, 246, 2329])
def test_the_line_of_a_list_within_its_ceiling_is_about_longer_lists(record, pool):
    record["brackets"][0]["ceiling"]["pool"] = pool
    shown = parsed(record)
    assert "random lists of more than 2,329 answers" in wording.ceiling_sentence(
        shown, shown.brackets[0]
    )


@pytest.mark.parametrize("pool", [246, 5000])
@pytest.mark.parametrize("log2", [-20, -7.5])
def test_every_sentence_about_a_ceiling_names_random_lists_and_the_share(record, pool, log2):
    for bracket in record["brackets"]:
        bracket["ceiling"].update(pool=pool, share_log2=log2)
    shown = parsed(record)
    share = {-20: "1 in 1,048,576", -7.5: "1 in 128"}[log2]
    sentences = [wording.longer_lists(shown)]
    for bracket in shown.brackets:
        sentences.append(wording.ceiling_sentence(shown, bracket))
        sentences.append(wording.summary_line(shown, bracket))
    for sentence in sentences:
        assert "random lists" in sentence
        assert f"at most {share}" in sentence
        assert "proved" in sentence
        assert "any prompt of" in sentence


def test_one_sentence_for_several_ceilings_names_the_largest_share(record):
    record["brackets"][1]["ceiling"]["share_log2"] = -10
    assert "1 in 1,024 of them" in wording.longer_lists(parsed(record))


@pytest.mark.parametrize(("drawn", "name"), [(True, "bits"), (False, "list bits")])
def test_only_random_answers_take_the_bits_of_their_list(record, drawn, name):
    record["task"]["answers_random"] = drawn
    assert wording.bits_name(parsed(record).task) == name


def test_the_line_of_a_floor_of_zero_claims_nothing(make_record):
    shown = parsed(make_record(held={1: 0}))
    line = wording.summary_line(shown, shown.brackets[0])
    assert line.startswith(
        "1 prompt token: no prompt was confirmed to hold any of the 246 capitals"
    )
    assert "found" not in line


def test_the_line_without_a_ceiling(record):
    record["brackets"][0]["ceiling"]["pairs"] = None
    shown = parsed(record)
    line = wording.summary_line(shown, shown.brackets[0])
    assert "the theorem gives no ceiling" in line
    assert "proved" not in line
    assert "1 in" not in line


def test_without_a_ceiling_there_is_no_sentence_about_longer_lists(record):
    record["brackets"][0]["ceiling"]["pairs"] = None
    record["brackets"][0]["ceiling"]["share_log2"] = -1
    assert "1 in 1,048,576" in wording.longer_lists(parsed(record))
    record["brackets"][1]["ceiling"]["pairs"] = None
    assert wording.longer_lists(parsed(record)) == ""


def test_lists_of_ones_own_are_called_pairs(record):
    record["task"]["name"] = "people.csv"
    assert wording.noun(parsed(record).task) == "pairs"


@pytest.mark.parametrize(
    ("log2", "shown"),
    [(-20, "1 in 1,048,576"), (-20.9, "1 in 1,048,576"), (-300, "1 in 2^300"), (-0.5, "1 in 1")],
)
def test_the_share_is_never_understated(record, log2, shown):
    record["brackets"][0]["ceiling"]["share_log2"] = log2
    assert wording.share_of_lists(parsed(record).brackets[0].ceiling) == shown


def with_control(record, **changes):
    control = {
        "status": "measured",
        "pairs": 62,
        "recovered": 62,
        "outcome": "solved",
        "finished": True,
        "steps": 41,
        "seconds": 12.0,
        "seed": 0,
        "distinct_answers": 50,
        "list_distinct_answers": 61,
        "answer_entropy_bits": 5.29,
        "answered_unprompted": 3,
        "token_norm": 238.0,
        "conclusion": "the optimiser finds <one>",
        **changes,
    }
    record["brackets"][0]["control"] = control
    return record


def test_a_control_is_measured_and_says_its_conclusion(record):
    first, second = parsed(with_control(record)).brackets
    assert wording.control_sentence(first.control) == (
        "planted control (measured): 62 of 62 answers of a known prompt recovered in 41 steps; "
        "the optimiser finds <one>"
    )
    assert wording.control_detail(first.control) == (
        "Planted answers: 50 distinct among 62 keys (61 among as many pairs of the list), "
        "entropy 5.2 bits, 3 of them also said without a prompt"
    )
    assert wording.control_sentence(second.control) == wording.control_detail(second.control) == ""


def test_a_control_that_did_not_finish_counts_nothing_as_recovered(record):
    said = "not finished: 4 of 62 after 2 steps, so nothing follows from it yet"
    changed = with_control(record, finished=False, recovered=4, conclusion=said)
    shown = parsed(changed).brackets[0]
    assert wording.control_sentence(shown.control) == f"planted control (measured): {said}"


def test_a_control_that_was_not_run_says_why_in_terminal_and_page(record):
    record["brackets"][0]["control"] = {
        "status": "not run",
        "reason": "budget used up",
        "conclusion": "the budget was used up <first>",
    }
    shown = parsed(record).brackets[0]
    assert (
        wording.control_sentence(shown.control)
        == "no planted control: the budget was used up <first>"
    )
    assert wording.control_detail(shown.control) == ""
    assert summary_lines(record)[1] == "no planted control: the budget was used up <first>"
    page = render(record)
    assert "No planted control: the budget was used up &lt;first&gt;." in page.replace(
        "<bdi>", ""
    ).replace("</bdi>", "")


def test_a_control_that_recovers_more_than_was_planted_is_refused(record):
    with pytest.raises(RunFailed, match="contradicts itself: 63 of 62 planted"):
        parsed(with_control(record, recovered=63))


def test_the_control_stands_beside_the_floor_in_terminal_and_page(record):
    lines = summary_lines(with_control(record))
    assert [line.split(":")[0] for line in lines] == [
        "1 prompt token",
        "planted control (measured)",
        "2 prompt tokens",
    ]
    page = render(record)
    assert "Planted control (measured): 62 of 62" in page.replace("<bdi>", "")
    assert "finds &lt;one&gt;" in page
    assert "50 distinct among 62 keys" in page
    assert "<dt>Planted control</dt>" in page


def test_a_record_without_a_control_still_reads_and_says_nothing_of_one(record):
    assert "lanted" not in render(record)
    assert len(summary_lines(record)) == 2
