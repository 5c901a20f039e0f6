"""`promptlimits pairs` shows what would be asked, and what a stock user would type gives it.

What is odd about a list is said on the console and kept in the record.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from promptlimits.testing.tiny_models import tiny_tokenizer

Call = Callable[..., Any]

CHAT = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>\\n' }}{% endif %}"
)


def listed(here, *pairs):
    lines = (json.dumps({"key": key, "value": value}) for key, value in pairs)
    (here / "list.jsonl").write_text("\n".join(lines), encoding="utf-8")


def asked(call, *options):
    ended = call("pairs", "--model", "tiny", "--pairs", "list.jsonl", "--json", *options)
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)


def test_what_will_be_asked_as_text_and_as_ids(call, here, model):
    listed(here, ("France", "Paris"), ("日本", "東京"))
    found = asked(call)
    tokenizer = tiny_tokenizer()
    first, second = found["pairs"]
    assert first == {
        "key": "France:",
        "joiner": " ",
        "value": "Paris",
        "key_ids": tokenizer("France:").input_ids,
        "value_ids": [*tokenizer(" Paris").input_ids, 0],
        "also": [],
        "where": "list.jsonl line 1",
    }
    assert (second["joiner"], second["value_ids"]) == ("", [*tokenizer("東京").input_ids, 0])
    assert found["notes"] == [
        "keys are put to the model as '{key}:'",
        "a space stands between key and value in 1 of 2 pairs",
    ]


@pytest.mark.parametrize(
    ("typed", "joiner"), [("none", ""), (r"\n", "\n"), (" ", " "), ("", ""), (r"\t-", "\t-")]
)
def test_a_joiner_of_ones_own(call, here, model, typed, joiner):
    listed(here, ("France", "Paris"), ("日本", "東京"))
    tokenizer = tiny_tokenizer()
    for pair in asked(call, "--joiner", typed)["pairs"]:
        assert pair["joiner"] == joiner
        assert tokenizer.decode(pair["value_ids"][:-1]) == joiner + pair["value"]


def test_a_chat(call, here, model):
    listed(here, ("France", "Paris"))
    (model / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    (pair,) = asked(call, "--chat")["pairs"]
    assert (pair["key"], pair["joiner"]) == ("<user>France\n<assistant>\n", "")
    assert pair["key_ids"] == tiny_tokenizer()(pair["key"]).input_ids
    (pair,) = asked(call, "--chat", "--template", "Capital of {key}?", "--joiner", " ")["pairs"]
    assert pair["key"] == "<user>Capital of France?\n<assistant>\n"
    assert pair["joiner"] == " "


def test_a_model_that_was_not_trained_for_chats(call, here, model):
    ended = call("pairs", "--model", "tiny", "--pairs", "pairs.csv", "--chat")
    ended.says(2, "the tokenizer must have a chat template", "-Instruct", "leave --chat out")
    for reference in ("random:4", "text:pairs.csv"):
        ended = call("pairs", "--model", "tiny", "--pairs", reference, "--chat")
        ended.says(2, "--chat must stand with a list of pairs")
        ended = call("pairs", "--model", "tiny", "--pairs", reference, "--joiner", "none")
        ended.says(2, "--joiner must stand with a list of pairs")


def test_every_blank_shows_in_the_terminal(call, here, model):
    listed(here, ("a\u00a0b", "one\ttwo"))
    ended = call("pairs", "--model", "tiny", "--pairs", "list.jsonl", "--template", "\u200b{key}")
    assert (ended.code, ended.err) == (0, "")
    place, key, value, *_ = ended.out.splitlines()
    assert place == "list.jsonl line 1:"
    assert r"key   '\u200ba\xa0b'  " in key
    assert r"value ' ' + 'one\ttwo'  " in value
    assert value.endswith(" 0")


def test_a_long_list_is_cut_in_the_terminal_alone(call, here, model):
    listed(here, *((f"key {number}", "two") for number in range(25)))
    ended = call("pairs", "--model", "tiny", "--pairs", "list.jsonl")
    assert ended.out.count("value") == 20 + 1  # and the note on the joiner
    assert "and 5 more; --json prints all of them" in ended.out
    assert "25 pairs of file list.jsonl; an answer ends in 0" in ended.out
    assert len(asked(call)["pairs"]) == 25
    assert len(asked(call, "--limit", "3")["pairs"]) == 3


def test_no_weight_is_read(call, here, model):
    listed(here, ("France", "Paris"))
    with_weights = asked(call)
    (model / "model.safetensors").unlink()
    assert asked(call) == with_weights


def test_the_codec_is_that_of_the_whole_model(tiny_parts, tiny):
    from promptlimits.nets.load.load import load_codec

    codec = load_codec(str(tiny))
    assert codec.end_id == tiny_parts.codec.end_id
    assert codec.plain_token_ids() == tiny_parts.codec.plain_token_ids()


Call = Callable[..., Any]

LIST = (
    '{"question": "Cura\xe7ao", "answer": ["Willemstad", "Punda"], "id": 1}\n'
    '{"question": "Curac\u0327ao", "answer": "Bonaire", "id": 2}\n'
    '{"question": "Antarctica", "answer": null, "id": 3}\n'
)
NOTES = (
    "1 entry without an answer left out, the first on line 3",
    "fields not used: 'id'; to ask with one of them: --template '{key}\\n{id}'",
    "keys that look like an earlier one, in another Unicode form",
)
# With it nothing is ever found: nothing is verified.
HOPELESS = ("--learning-rate", "1e-6", "--max-steps", "2", "--no-control", "--prompt-tokens", "1")


@pytest.fixture(autouse=True)
def _list(here, model):
    (here / "list.jsonl").write_text(LIST, encoding="utf-8")


@pytest.mark.slow  # loads and trains a model
@pytest.mark.parametrize("command", ["fit", "bracket"])
def test_notes_stand_on_the_console_and_in_the_record(command, call, here):
    ended = call(
        *(command, "--model", "tiny", "--pairs", "list.jsonl", "--columns", "question=answer"),
        *(*HOPELESS, "--out", "out"),
    )
    assert ended.code in (0, 1)
    record = json.loads((here / "out" / f"{command}.json").read_text(encoding="utf-8"))
    kept = record["notes"] if command == "fit" else record["task"]["notes"]
    said = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert said == [f"note: {note}" for note in kept]
    for note in NOTES:
        assert any(line.startswith(note) for line in kept), kept
