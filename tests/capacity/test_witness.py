"""A witness holds what the model answers behind the prompt: no more, and nothing altered.

The oracle is the slow loop of `greedy`: prompt and tokens end to end through the network, no
cache, no PEFT, one token at a time.
"""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from promptlimits.capacity import fresh_process
from promptlimits.capacity.verification import Verification
from promptlimits.capacity.witness import (
    confirm,
    main,
    save_witness,
    verify_in_fresh_process,
    verify_witness,
)
from promptlimits.errors import RunFailed, UserError
from promptlimits.models.hashing import weight_files, weights_hash
from promptlimits.models.protocol import EncodedPair, ModelCard
from promptlimits.testing.tiny_models import FAMILIES, tiny_causal_lm

KEYS = (
    *("France", "Italy", "Peru", "Cuba", "red", "blue", "one", "two", "dog", "moon", "sun", "fish"),
    *("red cat", "moon stone", "two birds", "one two three", "black river fish"),
)
PROMPT_TOKENS = 3
MOST_TOKENS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A tiny model, a random prompt, and what the model answers behind it."""

    model: Path
    card: ModelCard
    prompt: torch.Tensor
    pairs: tuple[EncodedPair, ...]

    def save(self, directory, **changes):
        given = {"prompt": self.prompt, "card": self.card, "pairs": self.pairs, **changes}
        save_witness(directory, task_name="capitals", task_hash="0" * 64, **given)
        return directory

    def verify(self, directory, **options):
        return verify_witness(directory, model_path=str(self.model), **options)


def card_of(model, *, context_length=128):
    return ModelCard(
        name="tiny",
        reference=str(model),
        path=str(model),
        weights_hash=weights_hash(weight_files(model)),
        parameters=1,
        dim=32,
        layers=2,
        vocabulary=1,
        context_length=context_length,
        compute_dtype="float32",
    )


@torch.no_grad()
def greedy(network, prompt, key_ids):
    ids = list(key_ids)
    for _ in range(MOST_TOKENS):
        tokens = network.get_input_embeddings()(torch.tensor([ids]))
        inputs = torch.cat([prompt.unsqueeze(0), tokens], dim=1)
        ids.append(int(network(inputs_embeds=inputs, use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(key_ids) :])


def cut_at(end, answers):
    """Answers that say `end`, but not at once, up to there: the longest first."""
    cut = {key: ids[: ids.index(end) + 1] for key, ids in answers.items() if end in ids[1:]}
    return dict(sorted(((k, v) for k, v in cut.items() if len(v) > 1), key=lambda kv: -len(kv[1])))


def case_of(model):
    """A random prompt behind which several keys have answers that end.

    A random model hardly ever says its own end marker, so the token that ends most answers
    takes its place.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    key_ids = {key: tuple(tokenizer(key).input_ids) for key in KEYS}
    for seed in range(20):
        prompt = torch.randn(PROMPT_TOKENS, 32, generator=torch.Generator().manual_seed(seed))
        answers = {key: greedy(network, prompt, ids) for key, ids in key_ids.items()}
        tokens = {token for answer in answers.values() for token in answer} - {0}
        ended = max((cut_at(end, answers) for end in sorted(tokens)), key=len)
        if len(ended) >= 3 and len(next(iter(ended.values()))) >= 3:
            break
    else:
        raise AssertionError("no seed gives three answers that end")
    pairs = [
        EncodedPair(key=key, value=tokenizer.decode(ids[:-1]), key_ids=key_ids[key], value_ids=ids)
        for key, ids in ended.items()
    ]
    return Case(model=model, card=card_of(model), prompt=prompt, pairs=tuple(pairs))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """The case of a family, made when it is first asked for."""

    @functools.cache
    def make(family):
        # Gemma scales its tied embeddings up: with larger weights it repeats its last token.
        scale = 0.05 if family == "gemma3" else 0.3
        directory = tmp_path_factory.mktemp("models") / family
        return case_of(tiny_causal_lm(directory, family, init_scale=scale))

    return make


@pytest.fixture(scope="module")
def case(cases):
    return cases("llama")


@pytest.fixture
def witness(case, tmp_path):
    return case.save(tmp_path / "witness-3-tokens")


def edit(directory, name, change):
    path = directory / name
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


# --- what it confirms ---------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_model_answers_is_confirmed(cases, family, tmp_path):
    case = cases(family)
    found = case.verify(case.save(tmp_path / "w"))
    assert found.pairs_exact == found.of == len(case.pairs)
    assert [a.generated_ids for a in found.answers] == [p.value_ids for p in case.pairs]
    assert [a.decoded for a in found.answers] == [p.value.strip() for p in case.pairs]
    assert found.same_weights
    assert found.confirmed_by.endswith("greedy generate, float32")


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_is_single(cases, family, tmp_path):
    case = cases(family)
    directory = case.save(tmp_path / "w")
    alone = case.verify(directory, batch_size=1)
    assert alone.answers == case.verify(directory, batch_size=16).answers


def test_the_prompt_is_what_answers(case, tmp_path):
    """Behind another prompt hardly a pair holds: the decoding does see the prompt."""
    other = case.save(tmp_path / "w", prompt=case.prompt.flip(0))
    assert case.verify(other).pairs_exact < len(case.pairs)


def test_a_wrong_answer_is_not_counted(case, tmp_path):
    first, *rest = case.pairs
    wrong = dataclasses.replace(first, value_ids=(first.value_ids[0] ^ 1, *first.value_ids[1:]))
    found = case.verify(case.save(tmp_path / "w", pairs=(wrong, *rest)))
    assert [a.exact for a in found.answers] == [False] + [True] * len(rest)
    assert found.pairs_exact == len(rest)
    assert found.answers[0].fault == "another answer"
    assert found.answers[0].generated_ids == first.value_ids


def test_an_answer_that_goes_on_is_not_exact(case, tmp_path):
    """The end marker is part of the answer: a right beginning is not enough."""
    long = case.pairs[0]
    cut = dataclasses.replace(long, value_ids=(*long.value_ids[:-2], 0))
    (answer,) = case.verify(case.save(tmp_path / "w", pairs=(cut,))).answers
    assert (answer.exact, answer.fault) == (False, "the answer goes on where it should end")


@pytest.mark.parametrize(
    "change", [lambda key: key + "!", lambda key: " ".join(["Tokyo"] * len(key.split()))]
)
def test_a_key_that_the_tokenizer_reads_otherwise_is_not_exact(case, tmp_path, change):
    first, *rest = case.pairs
    misread = dataclasses.replace(first, key=change(first.key))
    found = case.verify(case.save(tmp_path / "w", pairs=(misread, *rest)))
    assert [a.exact for a in found.answers] == [False] + [True] * len(rest)
    assert "reads the key as other ids" in found.answers[0].fault
    posed_as_ids = case.save(tmp_path / "w", pairs=(misread, *rest), posed_as="ids")
    assert case.verify(posed_as_ids).pairs_exact == len(case.pairs)


def test_settings_that_come_with_a_model_do_not_bend_greedy(case, tmp_path):
    model = Path(shutil.copytree(case.model, tmp_path / "model"))
    settings = {"repetition_penalty": 9.0, "do_sample": True, "temperature": 5.0}
    edit(model, "generation_config.json", lambda config: config.update(settings))
    directory = case.save(tmp_path / "w")
    assert verify_witness(directory, model_path=str(model)).pairs_exact == len(case.pairs)


def test_every_end_marker_of_the_model_ends_an_answer(case, tmp_path):
    """Stock `generate` stops at any of them, so an answer that holds one cannot be replayed."""
    long = case.pairs[0]
    model = Path(shutil.copytree(case.model, tmp_path / "model"))
    stop = {"eos_token_id": [0, long.value_ids[0]]}
    edit(model, "generation_config.json", lambda config: config.update(stop))
    directory = case.save(tmp_path / "w", pairs=(long,))
    (answer,) = verify_witness(directory, model_path=str(model)).answers
    assert answer.generated_ids == long.value_ids[:1]
    assert not answer.exact


# --- fresh processes ----------------------------------------------------------------------


# The tests above decode every family in this process; a process of its own costs ten seconds,
# so the two kinds of process share the families between them.


@pytest.mark.slow  # a process that imports torch, transformers and peft
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_fresh_process_confirms_the_same(cases, family, tmp_path):
    case = cases(family)
    directory = case.save(tmp_path / "w")
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the user was imported')")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        found = confirm(Path("w"), model_path=str(case.model))
    assert found.pairs_exact == len(case.pairs)
    assert found.answers == case.verify(directory).answers
    recorded = json.loads((directory / "witness.json").read_text())["verification"]
    assert Verification.from_json(recorded) == found
    assert [answer["counted"] for answer in recorded["answers"]] == [True] * len(case.pairs)


@pytest.mark.slow  # a process that imports torch, transformers and peft
def test_errors_of_a_fresh_process_are_those_of_this_one(witness, tmp_path):
    with pytest.raises(UserError, match=r"model must be .*nowhere.*which does not exist"):
        verify_in_fresh_process(witness, model_path=str(tmp_path / "nowhere"))


REPLAY_ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not any(name.startswith("promptlimits") for name in sys.modules), "not stock"
"""


def replay(directory, model, cwd):
    command = [sys.executable, "-I", "-c", REPLAY_ALONE, directory / "replay.py", "--model", model]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow  # a process that imports torch, transformers and peft
@pytest.mark.parametrize("family", ["gemma3", "gpt_neo"])
def test_replay_needs_stock_tools_only(cases, family, tmp_path):
    case = cases(family)
    directory = case.save(tmp_path / "w")
    moved = Path(shutil.copytree(directory, tmp_path / "elsewhere" / "w"))
    done = replay(moved, case.model, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{len(case.pairs)} of {len(case.pairs)} pairs exact"
    assert all(line.startswith("exact ") for line in lines[:-1])


@pytest.mark.slow  # two processes that import torch, transformers and peft
def test_replay_fails_where_a_counted_pair_does_not_hold(case, tmp_path):
    first, *rest = case.pairs
    wrong = dataclasses.replace(first, value_ids=(first.value_ids[0] ^ 1, *first.value_ids[1:]))
    directory = case.save(tmp_path / "w", pairs=(wrong, *rest))
    done = replay(directory, case.model, tmp_path)
    assert done.returncode == 1
    assert f"{len(rest)} of {len(case.pairs)} pairs exact" in done.stdout
    assert confirm(directory, model_path=str(case.model)).pairs_exact == len(rest)
    recorded = json.loads((directory / "witness.json").read_text())["verification"]
    assert [answer["counted"] for answer in recorded["answers"]] == [False] + [True] * len(rest)
    assert replay(directory, case.model, tmp_path).returncode == 0, "nobody claims the wrong one"


def test_a_process_that_takes_too_long_is_given_up(witness):
    with pytest.raises(RunFailed, match=r"took more than 0\.01 seconds"):
        verify_in_fresh_process(witness, timeout_seconds=0.01)


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("echo out of memory >&2; exit 137", r"ended with code 137 .*\(out of memory\)"),
        ("kill -9 $$", r"was killed by signal 9 .*\(it said nothing\)"),
    ],
)
def test_a_process_that_dies_is_reported(witness, monkeypatch, tmp_path, death, words):
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\necho 'some warning'\n{death}\n")
    dying.chmod(0o755)
    monkeypatch.setattr(fresh_process.sys, "executable", str(dying))
    with pytest.raises(RunFailed, match=words):
        verify_in_fresh_process(witness)


def test_an_error_of_the_process_is_raised_here(witness, monkeypatch, tmp_path):
    error = {"name": "model", "rule": "fit", "got": "none", "remedy": "find one"}
    speaking = tmp_path / "python"
    speaking.write_text(f"#!/bin/sh\necho '{json.dumps({'error': error})}'; exit 2\n")
    speaking.chmod(0o755)
    monkeypatch.setattr(fresh_process.sys, "executable", str(speaking))
    with pytest.raises(UserError, match=r"^model must fit, got none; find one$"):
        verify_in_fresh_process(witness)


def test_what_was_confirmed_is_recorded_and_a_wrong_pair_is_not_counted(
    case, tmp_path, monkeypatch
):
    """As `confirm` does it, with the decoding done in this process to save ten seconds."""
    first, *rest = case.pairs
    wrong = dataclasses.replace(first, value_ids=(first.value_ids[0] ^ 1, *first.value_ids[1:]))
    directory = case.save(tmp_path / "w", pairs=(wrong, *rest))
    found = case.verify(directory)
    monkeypatch.setattr(fresh_process, "verify_in_fresh_process", lambda *_, **__: found)
    assert confirm(directory) is found
    recorded = json.loads((directory / "witness.json").read_text())["verification"]
    assert [answer["counted"] for answer in recorded["answers"]] == [False] + [True] * len(rest)
    assert (recorded["pairs_exact"], recorded["of"]) == (len(rest), len(case.pairs))
    assert Verification.from_json(recorded) == found


def test_the_process_writes_one_line_of_json(case, witness, capsys):
    assert main([str(witness), "--model", str(case.model), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = Verification.from_json(json.loads(line)["verification"])
    assert found.answers == case.verify(witness).answers
    assert main([str(witness) + "-not", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["rule"] == "be a witness folder"


# --- what it refuses ----------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, PROMPT_TOKENS * 32 - 1])
def test_an_altered_digit_of_the_prompt_is_refused(case, witness, position):
    tensors = load_file(witness / "adapter_model.safetensors")
    tensors["prompt_embeddings"].view(-1).view(torch.int32)[position] ^= 1
    save_file(tensors, witness / "adapter_model.safetensors")
    with pytest.raises(UserError, match="got altered prompt"):
        case.verify(witness)


def test_an_altered_pair_is_refused(case, witness):
    edit(witness, "witness.json", lambda document: document["pairs"][0].update(value="Rome"))
    with pytest.raises(UserError, match="got altered pairs"):
        case.verify(witness)


def test_other_weights_are_refused_unless_allowed(case, witness, tmp_path):
    other = tiny_causal_lm(tmp_path / "other", "llama", seed=1)
    with pytest.raises(UserError, match=r"must have the weights of the witness .*--any-weights"):
        verify_witness(witness, model_path=str(other))
    found = verify_witness(witness, model_path=str(other), any_weights=True)
    assert not found.same_weights
    assert found.pairs_exact < found.of


def test_a_model_of_another_width_is_refused(witness, tmp_path):
    wide = tiny_causal_lm(tmp_path / "wide", "llama", dim=64)
    with pytest.raises(UserError, match="must have a width of 32, as the prompt has, got 64"):
        verify_witness(witness, model_path=str(wide), any_weights=True)


def test_a_model_that_reads_too_few_tokens_is_refused(case, tmp_path):
    longest = max(
        PROMPT_TOKENS + len(p.key_ids) + max(len(q.value_ids) for q in case.pairs)
        for p in case.pairs
    )
    directory = case.save(tmp_path / "w")
    for length, fits in ((longest, True), (longest - 1, False)):
        model = Path(shutil.copytree(case.model, tmp_path / f"model-{length}"))
        change = {"max_position_embeddings": length}
        edit(model, "config.json", lambda config, change=change: config.update(change))
        if fits:
            assert verify_witness(directory, model_path=str(model)).pairs_exact == len(case.pairs)
        else:
            with pytest.raises(UserError, match=rf"must read {longest} tokens"):
                verify_witness(directory, model_path=str(model))


def test_a_local_model_must_be_said_where_it_is(witness, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"got 'tiny', which is not .*say where.*--model PATH"):
        verify_witness(witness)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="must be a witness folder, got nothing there"):
        verify_witness(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="must be a witness folder, got a file"):
        verify_witness(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("witness.json", None, "must hold witness.json"),
        ("witness.json", b"", "cannot be read"),
        ("witness.json", b'{"schema": 1, "model": {', "cannot be read"),
        ("witness.json", b"\xff\xfe\x00", "cannot be read"),
        ("witness.json", b"[]", "list where an object should be"),
        ("witness.json", b"{}", "model: Field required"),
        ("witness.json", b'{"schema": 2}', "must have schema 1 or older, got schema 2; upgrade"),
        ("adapter_config.json", None, "must hold adapter_config.json"),
        ("adapter_config.json", b"{", "cannot be read"),
        ("adapter_config.json", b'{"peft_type": "LORA"}', 'got .*"peft_type":"LORA"'),
        ("adapter_model.safetensors", None, "No such file"),
        ("adapter_model.safetensors", b"", "cannot be read"),
        ("adapter_model.safetensors", b"\x10\0\0\0\0\0\0\0{", "cannot be read"),
    ],
)
def test_broken_files_are_named(case, witness, name, content, words):
    if content is None:
        (witness / name).unlink()
    else:
        (witness / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        case.verify(witness)
    assert "witness-3-tokens" in str(caught.value)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"prompt_embeddings": torch.zeros(PROMPT_TOKENS + 1, 32)},
        {"prompt_embeddings": torch.zeros(PROMPT_TOKENS, 32, dtype=torch.float64)},
        {"other": torch.zeros(PROMPT_TOKENS, 32)},
    ],
    ids=["none", "shape", "dtype", "name"],
)
def test_another_tensor_is_refused(case, witness, tensors):
    save_file(tensors, witness / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"hold prompt_embeddings of shape \(3, 32\) in float32"):
        case.verify(witness)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["pairs"].clear(),
        lambda document: document["pairs"][0].update(value_ids=[]),
        lambda document: document["pairs"][0].update(key_ids="12"),
        lambda document: document.update(prompt_tokens="3"),
        lambda document: document.update(prompt_sha256="0"),
        lambda document: document.update(posed_as="song"),
    ],
)
def test_fields_of_another_kind_are_refused(case, witness, change):
    edit(witness, "witness.json", change)
    with pytest.raises(UserError, match="must be as promptlimits wrote it"):
        case.verify(witness)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_prompt_that_is_not_finite_is_not_saved(case, tmp_path, bad):
    prompt = case.prompt.clone()
    prompt[1, 2] = bad
    with pytest.raises(UserError, match="must have finite numbers only, got 1 that are not"):
        case.save(tmp_path / "w", prompt=prompt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "prompt",
    [torch.zeros(0, 32), torch.zeros(32), torch.zeros(3, 31), torch.zeros(3, 32).double()],
    ids=["no token", "one axis", "width", "dtype"],
)
def test_a_prompt_of_another_form_is_not_saved(case, tmp_path, prompt):
    with pytest.raises(UserError, match="prompt must have shape"):
        case.save(tmp_path / "w", prompt=prompt)


def test_no_pairs_are_no_witness(case, tmp_path):
    with pytest.raises(UserError, match="pairs must not be empty"):
        case.save(tmp_path / "w", pairs=())


# --- the folder ---------------------------------------------------------------------------


def test_it_names_no_path_of_the_machine(case, witness):
    for path in witness.iterdir():
        assert str(case.model.parent).encode() not in path.read_bytes()
    config = json.loads((witness / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"


@pytest.mark.parametrize("reference", ["smollm2-135m", "org/model"])
def test_a_name_that_others_know_is_kept(case, tmp_path, reference):
    card = dataclasses.replace(case.card, reference=reference)
    directory = case.save(tmp_path / "w", card=card)
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == reference


def test_it_replaces_an_older_witness(case, tmp_path):
    directory = case.save(tmp_path / "w", pairs=case.pairs[:1])
    assert case.verify(directory).of == 1
    case.save(directory)
    assert case.verify(directory).of == len(case.pairs)
    assert list(tmp_path.iterdir()) == [directory]


def test_it_never_replaces_somebody_elses_folder(case, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(UserError, match="must be a new folder or an older witness"):
        case.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    case.save(tmp_path / "empty")


def test_a_replacement_cut_short_is_undone_on_reading(case, witness):
    witness.rename(witness.with_name(f".{witness.name}.old"))
    assert case.verify(witness).pairs_exact == len(case.pairs)


def test_a_verification_of_another_prompt_is_not_recorded(case, witness):
    found = case.verify(witness)
    case.save(witness, prompt=case.prompt + 1)
    with pytest.raises(UserError, match="altered prompt"):
        fresh_process.write_verification(witness, found.to_json())
    assert json.loads((witness / "witness.json").read_text())["verification"] is None


def test_saving_changes_nothing_of_the_callers(case, tmp_path):
    prompt = case.prompt.clone().requires_grad_()
    case.save(tmp_path / "w", prompt=prompt)
    assert torch.equal(prompt, case.prompt)
    saved = load_file(tmp_path / "w" / "adapter_model.safetensors")["prompt_embeddings"]
    assert torch.equal(saved, case.prompt), "bit for bit"
