import pytest
from tests.report.conftest import put

from promptlimits.base.errors import RunFailed, UserError
from promptlimits.record.parts import Verdict
from promptlimits.record.record import read_record


def test_a_record_reads_and_its_lengths_rise(make_record):
    parsed = read_record(make_record(held={4: 90, 1: 40}))
    assert [bracket.prompt_tokens for bracket in parsed.brackets] == [1, 4]
    assert parsed.brackets[0].floor.pairs == 40
    assert parsed.task.answer_set_size == "243"


def test_an_answer_set_beyond_pythons_limit_on_digits(record):
    record["task"]["answer_set_size"] = "7" * 9384
    assert read_record(record).task.answer_set_size == "7" * 9384


@pytest.mark.parametrize("stranger", [None, [], "text", {"kind": "run", "schema": 1}])
def test_what_is_no_bracket_record_is_refused(stranger):
    with pytest.raises(UserError, match='of kind "bracket"'):
        read_record(stranger)


@pytest.mark.parametrize(
    ("schema", "remedy"), [(2, "upgrade"), (0, "run its command again"), (True, "again")]
)
def test_other_schemas_are_refused_with_their_own_remedy(record, schema, remedy):
    record["schema"] = schema
    with pytest.raises(UserError, match=f"record schema must be 1.*{remedy}"):
        read_record(record)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", "zero"),
        ("brackets", []),
        ("task.answer_set_size", "many"),
        ("task.answer_set_size", 243),
        ("task.answers_random", None),
        ("baselines", None),
        ("baselines.1.shots", "246"),
        ("versions", []),
        ("brackets.0.search", "nothing"),
        ("brackets.0.floor.answers", {}),
        ("brackets.0.floor.answers.3.exact", 1),
        ("brackets.0.complete", "yes"),
        ("brackets.0.state", "lost"),
        ("brackets.0.floor.pairs", -1),
        ("brackets.0.floor.pairs", 40.0),
        ("brackets.0.floor.status", "estimated"),
        ("brackets.0.ceiling.status", "found"),
        ("brackets.0.ceiling.bits", float("nan")),
        ("brackets.0.ceiling.share_log2", 0),
        ("brackets.0.ceiling.share_log2", None),
        ("brackets.0.ceiling.pool", -1),
        ("brackets.0.prompt_tokens", 0),
    ],
)
def test_an_unreadable_field_is_named(record, path, value):
    with pytest.raises(UserError) as caught:
        read_record(put(record, {path: value}))
    assert str(caught.value).startswith(f"record field {path} ")
    assert "run the command that wrote the record again" in str(caught.value)


@pytest.mark.parametrize("part", [("model", "name"), ("task", "source"), ("baselines",), ("seed",)])
def test_a_missing_field_is_named_and_its_surroundings_are_not_poured_out(record, part):
    inner = record
    for step in part[:-1]:
        inner = inner[step]
    del inner[part[-1]]
    with pytest.raises(UserError, match=r"record field " + r"\.".join(part)) as caught:
        read_record(record)
    assert len(str(caught.value)) < 300


def test_a_field_that_no_record_has_is_named(record):
    record["brackets"][1]["floor"]["found"] = 3
    with pytest.raises(UserError, match=r"record field brackets\.1\.floor\.found .*not permitted"):
        read_record(record)


@pytest.mark.parametrize("sizes", [{}, {"pairs": 8, "tokens": 8}])
def test_a_size_is_in_pairs_or_in_tokens(record, sizes):
    attempt = record["brackets"][0]["search"][0]
    del attempt["pairs"]
    attempt |= sizes
    with pytest.raises(UserError, match="give pairs or tokens"):
        read_record(record)


def test_what_is_read_is_written_again_as_it_was(record):
    assert read_record(record).to_json() == record


def test_a_floor_above_the_ceiling_is_loud(record):
    record["task"]["answers_random"] = True
    record["brackets"][1]["ceiling"]["pairs"] = 70
    with pytest.raises(RunFailed, match=r"71 pairs found.*above.*70 random pairs proved.*length 2"):
        read_record(record)


def test_facts_above_the_ceiling_are_facts_that_the_model_predicts(record):
    record["brackets"][1]["ceiling"]["pairs"] = 70
    assert read_record(record).brackets[1].floor.pairs == 71


def test_a_floor_at_the_ceiling_is_allowed(record):
    record["brackets"][1]["ceiling"]["pairs"] = 71
    assert read_record(record).brackets[1].ceiling.pairs == 71


def test_found_needs_a_witness(record):
    record["brackets"][0]["floor"]["witness"] = None
    with pytest.raises(RunFailed, match="without a witness"):
        read_record(record)


@pytest.mark.parametrize(("index", "exact", "held"), [(0, False, 39), (-1, True, 41)])
def test_the_floor_must_be_what_its_answers_hold(record, index, exact, held):
    record["brackets"][0]["floor"]["answers"][index]["exact"] = exact
    with pytest.raises(RunFailed, match=f"says 40 pairs, its answers hold {held}"):
        read_record(record)


def test_no_more_can_be_held_than_the_list_has(record):
    record["task"]["pairs"] = 39
    with pytest.raises(RunFailed, match="of a list of 39"):
        read_record(record)


def test_verdicts(record):
    answers = read_record(record).brackets[0].floor.answers
    tally = [answer.verdict for answer in answers]
    assert [tally.count(verdict) for verdict in Verdict] == [40, 3, 203]


def test_a_wrong_answer_is_wrong_whether_or_not_it_is_marked_uncounted(record):
    wrong = record["brackets"][0]["floor"]["answers"][-1]
    wrong["counted"] = False
    assert read_record(record).brackets[0].floor.answers[-1].verdict is Verdict.WRONG
