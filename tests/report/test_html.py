import ast
import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from tests.report.conftest import put, sample_record
from tests.report.views import parsed, printed, render, summary_lines, write_report

from promptlimits.base.errors import RunFailed
from promptlimits.report import sections

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>'",
    "{{ 7 * 7 }}{% raw %}",
    "\u05e9\u05dc\u05d5\u05dd \u202eevil\u202c",
    "\U0001f600\U0001f468\u200d\U0001f469",
    "lone \ud800 surrogate \x00\x1b[31m",
    "$\\frac{1}{0}$ %s {} {0}",
    "long " * 2000,
)
# Elements that close themselves.
VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """Elements, attributes and text of a page, with a check that every element is closed."""

    def __init__(self, markup):
        super().__init__()
        self.elements, self.open, self.text, self.scripts = [], [], [], []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in {"td", "th", "dt"}:
            self.text.append(" ")

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.text).append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page():
    return Page(render(sample_record()))


def policy(page):
    return next(m["content"] for m in page.all("meta") if "http-equiv" in m)


def test_nothing_is_loaded(page):
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base", "form"}
        for name in ("src", "srcset", "action", "poster", "background"):
            assert name not in attributes
        for name in ("href", "xlink:href"):
            target = attributes.get(name, "#")
            assert target.startswith(("#", "data:application/json;base64,")), target
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in "".join(page.text)
    assert not re.search(r"url\((?!#)", "".join(page.text))


def test_the_policy_forbids_everything_but_the_one_script(page):
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy(page).startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy(page)
    assert "base-uri 'none'" in policy(page)
    assert "form-action 'none'" in policy(page)
    # Every copy button is hidden until the script shows that it runs.
    assert all("hidden" in button for button in page.all("button"))


def test_the_answer_comes_first_in_plain_words(page):
    words = page.words
    assert "How many capitals can a soft prompt of SyntheticLM-135M hold?" in words
    found = words.index(
        "Found 40 of 246 capitals held exactly, confirmed by stock PEFT 0.21.2 + transformers"
    )
    proved = words.index(
        "Proved 2,329 Of random lists of more than 2,329 answers from this set, at most "
        "1 in 1,048,576 can be answered in full by any prompt of this size. This is about answers "
        "drawn at random, never about these facts. 18,456.9 bits of random answers"
    )
    assert found < proved < words.index("What these numbers mean")
    assert "18,456.9 bits of random answers; the numbers of such a prompt take 18,432.0" in words
    assert (
        "316.9 list bits, 316.9 per prompt token: what so many random answers would take" in words
    )
    assert "What lies between 40 and 2,329 is not known, a factor of 58.2." in words
    assert "3 more came out exact and are not counted" in words


@pytest.mark.parametrize("longer", [False, True])
def test_nothing_is_said_to_be_beyond_every_prompt(record, longer):
    """Of a list far longer than its ceiling some prompt has more right, by luck."""
    if longer:
        record["task"]["pairs"] = 1_100_000
        for bracket in record["brackets"]:
            bracket["ceiling"]["pool"] = 1_100_000
    record["brackets"][0]["state"] = "none_found"
    record["brackets"][0]["floor"].update(pairs=0, answers=[], witness=None)
    lines = " ".join(summary_lines(record))
    page = Page(render(record)).words
    for said in (page, lines, printed(record)):
        said = " ".join(said.split())
        for false in (
            "can hold more",
            "No prompt of this size",
            "no prompt of this size",
            "no prompt of this length holds",
            "no prompt holds",
            "the most random pairs",
            "random pairs",
            "passes on",
        ):
            assert false not in said, false
        assert "1 in 1,048,576" in said
        assert "random lists" in said
    assert ("Of random lists of 1,100,000 answers from this set" in page) is longer
    assert ("right out of a random list of our list\u2019s length" in page) is longer


def test_everything_a_reader_needs_is_there(page):
    words = page.words
    for said in (
        "4-bit weights dequantised to float32",
        "in context (246 shots, 1,900 tokens) 200 of 246",
        "1, 2 prompt tokens: the search ended because the time given was used up.",
        "never about one list of facts",
        "promptlimits verify witness-2-tokens",
        "Decoding is deterministic: the same prompt gives the same answers.",
        "counting theorem: distinct prompts against distinct lists",
        "ceiling-2-tokens.json",
        "128 40 out of steps 640 3 min 12 s",
        "out of steps: raise --max-steps",
        "0123456789abcdef" * 4,
        "fedcba9876543210" * 4,
        "torch 2.13.0",
        "Seed 0",
        "shuffled with seed 0",
        "List bits Pairs times the logarithm",
        "one that elicits what the model knows needs fewer",
        "List bits per token",
        "scored by promptlimits, not decoded again by stock tools",
    ):
        assert said in words, said
    for said in ("not subtracted", "judged the same way"):
        assert said not in words, said


def test_every_pair_is_listed_with_its_verdict(page, record):
    rows = [a["class"] for a in page.all("tr") if "held" in a.get("class", "").split()]
    assert len(rows) == 71
    assert len([a for a in page.all("tr") if "class" in a and a["class"] != "baseline"]) == 246
    words = page.words
    assert "1 prompt token: 40 held, 203 wrong, 3 not counted" in words
    assert "Chad N'Djamena \u2713 exact \u2713 exact not exact" in words
    assert "Country 45 Capital 45 \u2717 wrong: Wrong City \u2713 exact not exact" in words
    assert "Country 41 Capital 41 exact, not counted \u2713 exact exact" in words


def test_links_inside_the_page_lead_somewhere(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        references = attributes.get("aria-labelledby", "").split()
        references += [attributes["data-copy"]] if "data-copy" in attributes else []
        if tag in {"a", "use"} and attributes["href"].startswith("#"):
            references.append(attributes["href"][1:])
        assert set(references) <= set(ids)


def test_headings_do_not_skip_a_level(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_the_whole_record_can_be_taken_out_again(page, record):
    (link,) = [a for a in page.all("a") if "download" in a]
    encoded = link["href"].removeprefix("data:application/json;base64,")
    assert json.loads(base64.b64decode(encoded)) == record


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_strings_are_harmless(make_record, hostile):
    plain = Page(render(make_record(held={1: 4}, number=8)))
    record = make_record(held={1: 4}, number=8, warnings=[hostile])
    record["command"] = record["created"] = hostile
    for field in ("name", "reference", "path", "model_hash", "compute_dtype"):
        record["model"][field] = hostile
    for field in ("name", "hash", "answer_set", "order", "source"):
        record["task"][field] = hostile
    record["baselines"][1].update(name=hostile, note=hostile)
    record["versions"] = {hostile: hostile}
    bracket = record["brackets"][0]
    bracket["stopped_because"] = hostile
    bracket["floor"].update(witness=hostile, confirmed_by=hostile)
    for field in ("source", "statement", "certificate"):
        bracket["ceiling"][field] = hostile
    bracket["ceiling"]["assumptions"] = [hostile]
    bracket["search"][0].update(outcome=hostile, remedy=hostile)
    for answer in bracket["floor"]["answers"]:
        answer.update(key=hostile + answer["key"], value=hostile, decoded=hostile)
    page = Page(render(record))
    assert page.scripts == plain.scripts
    known = {tag for tag, _ in plain.elements}
    assert {tag for tag, _ in page.elements} <= known
    assert {name for _, a in page.elements for name in a} <= {
        name for _, a in plain.elements for name in a
    }
    assert policy(page) == policy(plain)
    assert "\u202e" not in "".join(page.text)
    assert "\x00" not in "".join(page.text)
    assert "\x1b" not in "".join(page.text)


WRONG = "brackets.0.floor.answers.-1"


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        (
            {"task.answers_random": True},
            "bits of that choice are not subtracted",
            ["list bits", "List bits", "these facts"],
        ),
        (
            {f"{WRONG}.decoded": "z" * 10_000},
            "z" * 160 + "\u2026 (10,000 characters)",
            ["z" * 161],
        ),
        (
            {f"{WRONG}.decoded": "Capital 245", f"{WRONG}.fault": "it does not stop there"},
            "\u2717 wrong: Capital 245 (it does not stop there)",
            [],
        ),
        ({f"{WRONG}.decoded": ""}, "\u2717 wrong: (nothing)", []),
        ({f"{WRONG}.decoded": "Wrong\nCity"}, "\u2717 wrong: Wrong\u240aCity", []),
        (
            {"brackets.*.ceiling.pairs": None},
            (
                "Proved nothing There is a single answer to give, so the answers carry no "
                "information, and this theorem does not limit how many are held."
            ),
            ["nothing limits", "1 in 1,048,576"],
        ),
        (
            {"brackets.*.ceiling.pairs": None},
            "There is no ceiling to set beside the floor.",
            [],
        ),
        (
            {"brackets.0.floor.answers.0.unprompted": True},
            "1 of them the model also answers without a prompt.",
            [],
        ),
        (
            {"brackets.0.ceiling.pairs": 40},
            "The two numbers are the same, but the ceiling is about random answers only.",
            ["The two limits meet."],
        ),
        (
            {"brackets.0.ceiling.pairs": 40, "task.answers_random": True},
            "The two limits meet.",
            ["The two numbers are the same"],
        ),
        (
            {"brackets.0.ceiling.pairs": 39},
            (
                "The floor is above the ceiling: the model predicts such answers, so the ceiling "
                "for random answers does not limit them."
            ),
            ["What lies between 40"],
        ),
    ],
)
def test_the_page_of_a_record_with_changed_fields(record, changes, said, unsaid):
    words = Page(render(put(record, changes))).words
    assert said in words
    for sentence in unsaid:
        assert sentence not in words, sentence


def test_pairs_that_were_never_decoded_are_counted(record):
    for bracket in record["brackets"]:
        floor = bracket["floor"]
        floor["answers"] = floor["answers"][: floor["pairs"]]
    words = Page(render(record)).words
    assert "1 prompt token: 40 held, 0 wrong, 0 not counted" in words
    assert "The other 175 pairs of the list were not put to the test" in words
    assert "All 71 decoded pairs" in words
    assert "Not counted Pairs that" not in words


def test_pairs_that_one_prompt_was_not_asked(record):
    del record["brackets"][1]["floor"]["answers"][-1]
    said = "Country 245 Capital 245 \u2717 wrong: Wrong City not decoded not exact"
    assert said in Page(render(record)).words


def test_user_text_is_isolated_from_the_direction_of_the_page(record):
    record["task"]["answer_set"] = "\u05e9\u05dc\u05d5\u05dd"
    page = render(record)
    assert "<bdi>\u05e9\u05dc\u05d5\u05dd</bdi>" in page
    assert page == render(record), "the same record gives the same page"
    assert len(page.encode()) < 400_000


def test_pairs_that_look_alike_stay_apart(make_record):
    record = make_record(held={1: 4}, number=8)
    for answer in record["brackets"][0]["floor"]["answers"]:
        answer.update(key="\ufffd", value="same")
    assert len(sections.pair_rows(parsed(record))) == 8


def test_nothing_found_promises_nothing(make_record):
    page = Page(render(make_record(held={1: 0})))
    assert "No prompt of this length was confirmed to hold any of the 246 capitals." in page.words
    assert "PeftModel" not in page.words
    assert "promptlimits verify" not in page.words
    assert "#use" not in [a.get("href") for a in page.all("a")]


def test_a_floor_above_its_ceiling_makes_no_page(record, tmp_path):
    record["task"]["answers_random"] = True
    record["brackets"][0]["ceiling"]["pairs"] = 39
    with pytest.raises(RunFailed, match="above the ceiling"):
        write_report(record, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_loading_code_is_python_that_names_the_best_witness(record):
    record["model"]["path"] = 'odd "path\\\n\u202e'
    code = sections.load_code(parsed(record))
    ast.parse(code)
    assert code.isascii()
    strings = [n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant)]
    assert {'odd "path\\\n\u202e', "witness-2-tokens", "France"} <= set(strings)
    assert "dtype=torch.float32" in code
    assert "# 'Paris' True" in code
    assert max(map(len, code.splitlines())) <= 100


def test_keys_of_random_tokens_are_posed_as_ids(record):
    record["task"]["answers_random"] = True
    code = sections.load_code(parsed(record))
    ast.parse(code)
    assert 'if answer["counted"]' in code
    assert "France" not in code
    assert "'witness-2-tokens'" in code


def test_the_best_prompt_is_the_one_to_verify(make_record):
    record = make_record(held={1: 40, 2: 39, 4: 0})
    record["model"]["path"] = "my model"
    assert sections.verify_code(parsed(record)) == (
        "promptlimits verify witness-1-tokens --model 'my model'\n"
        "python witness-1-tokens/replay.py --model 'my model'"
    )


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("promptlimits bracket --a b --c", "promptlimits bracket \\\n  --a b \\\n  --c"),
        ("run --name 'two  words --x'", "run \\\n  --name 'two  words --x'"),
        ("unbalanced ' --quote", "unbalanced ' --quote"),
        ("", ""),
    ],
)
def test_a_command_stays_the_same_command(line, shown):
    assert sections.command(line) == shown


def test_write_report_replaces_the_file_whole(record, tmp_path):
    target = write_report(record, tmp_path / "new" / "folder")
    assert target.name == "report.html"
    record["warnings"] = ["second edition"]
    assert write_report(record, target.parent) == target
    assert "second edition" in target.read_text("utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_a_failed_write_keeps_the_old_page(record, tmp_path, monkeypatch):
    target = write_report(record, tmp_path)
    before = target.read_bytes()

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    record["warnings"] = ["lost"]
    with pytest.raises(RunFailed, match="disk full"):
        write_report(record, tmp_path)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_meet_wcag_aa(scheme):
    css = sections.resource("bracket.css")
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    for ink in ("ink", "muted", "found", "proved", "bad"):
        assert contrast(colours[ink], colours["paper"]) >= 4.5, ink
    assert contrast(colours["ink"], colours["panel"]) >= 4.5
    assert contrast(colours["proved"], colours["proved-wash"]) >= 4.5
    assert contrast(colours["on-found"], colours["found"]) >= 4.5


def test_the_drawing_uses_the_colours_of_the_page(record):
    css = sections.resource("bracket.css")
    light = dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{6});", css.split("@media")[0]))
    used = re.findall(r"var\((--[a-z-]+), (#[0-9a-f]{6})\)", render(record))
    assert set(used) <= set(light.items())
    assert len(set(used)) == 6
