"""Mistakes that only a model, or a saved prompt, shows: one line each, exit code 2."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.files.cache import cache_directory
from promptlimits.nets.files.catalog import find_entry
from promptlimits.nets.files.folder import model_hash, weight_files

Call = Callable[..., Any]

BRACKET = ("bracket", "--model", "tiny", "--pairs", "pairs.csv", "--out", "out", "--quiet")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def nan_weight(tensors):
    tensors["transformer.ln_f.weight"][0] = torch.nan


def only_pickle(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def truncate(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def config(**changes):
    return lambda model: edit(model / "config.json", **changes)


MODELS = {
    # what is done to ./tiny, words that the line must hold
    "no config": (lambda model: (model / "config.json").unlink(), ("model tiny", "config.json")),
    "config is not JSON": (
        lambda model: (model / "config.json").write_text("{"),
        ("model tiny", "config.json"),
    ),
    "unknown family": (config(model_type="frob"), ("model tiny", "'frob'")),
    "no family": (config(model_type=None), ("model tiny", "model_type")),
    "code of its own": (
        config(model_type="frob", auto_map={"AutoModel": "run.Me"}),
        ("model tiny", "never run"),
    ),
    "encoder": (config(model_type="bert"), ("model tiny", "bert, an encoder")),
    "encoder-decoder": (config(model_type="t5"), ("model tiny", "t5, an encoder-decoder")),
    "pickle": (only_pickle, ("model tiny", "pickle")),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), ("model.safetensors",)),
    "truncated weights": (truncate, ("model.safetensors", "truncated")),
    "NaN weight": (
        lambda model: edit_tensors(model / "model.safetensors", nan_weight),
        ("model tiny", "NaN", "ln_f"),
    ),
    "missing weight": (
        lambda model: edit_tensors(
            model / "model.safetensors", lambda tensors: tensors.pop("transformer.ln_f.weight")
        ),
        ("model tiny", "1 missing"),
    ),
    "no tokenizer": (
        lambda model: (model / "tokenizer.json").unlink(),
        ("model tiny", "tokenizer"),
    ),
    "width is text": (config(n_embd="64"), ("model tiny", "n_embd", "'64'")),
    "no heads": (config(n_head=0), ("model tiny", "config.json")),
    "end marker is text": (
        lambda model: edit(model / "generation_config.json", eos_token_id="two"),
        ("eos_token_id", "generation_config.json", "'two'"),
    ),
    "larger than its weights": (config(n_layer=9000), ("model tiny", "weights")),
    "pipe": (lambda model: os.mkfifo(model / "vocab.json"), ("model tiny", "vocab.json: a pipe")),
    "adapter": (
        lambda model: [
            (model / "config.json").unlink(),
            (model / "adapter_config.json").write_text('{"peft_type": "LORA"}'),
        ],
        ("model tiny", "a PEFT adapter (LORA)", "promptlimits score"),
    ),
    "tokenizer is not JSON": (
        lambda model: (model / "tokenizer.json").write_text("{"),
        ("model tiny", "tokenizer"),
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_cannot_be_used_is_one_line(kind, call, model):
    spoil, words = MODELS[kind]
    spoil(model)
    call(*BRACKET).says(2, *words)


FILES = {
    "not GGUF": (b"hello, hello, hello, hello", ("a.gguf",)),
    "empty": (b"", ("a.gguf",)),
    "claims 2^40 fields": (b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 40), ("a.gguf", "claimed")),
    "cut off": (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + b"\0" * 8, ("a.gguf",)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_whole_gguf_is_one_line(kind, call, here):
    content, words = FILES[kind]
    (here / "a.gguf").write_bytes(content)
    call("fit", "--model", "a.gguf", "--pairs", "pairs.csv", "--quiet").says(2, *words)


REFERENCES = [
    # command, words that the line must hold
    ("bracket --model smolm2-135m", ("--model", "did you mean smollm2-135m?")),
    ("bracket --model nowhere/at/all", ("--model", "check the path")),
    ("bracket --model nowhere.gguf", ("--model", "check the path")),
    ("bracket --model ~nobody-of-that-name/model", ("--model", "check the path")),
    ("bracket --model=", ("--model", "''")),
    (f"bracket --model {'m' * 5000}", ("--model",)),
    ("bracket --model pairs.csv", ("pairs.csv",)),
    ("bracket --model org/name --offline", ("org/name", "offline")),
    ("fit --model org/name", ("org/name", "offline")),  # the tests forbid the hub
    ("bracket --model gemma3-270m", ("gemma3-270m", "--accept-terms")),
    ("bracket --model tiny --device nonsense", ("--device", "use cpu")),
    ("bracket --model tiny --device meta", ("--device", "use cpu")),
    ("bracket --model tiny --pairs random:99999", ("count of random pairs", "99,999")),
    ("bracket --model tiny --pairs random:2,70,70", ("random pair", "context of 128")),
    ("bracket --model tiny --prompt-tokens 1,127", ("pairs.csv line", "context of 128")),
    ("fit --model tiny --prompt-tokens 127", ("pairs.csv line", "context of 128")),
    ("bracket --model tiny --pairs long.csv", ("long.csv line 3", "context of 128")),
    ("bracket --model tiny --pairs end.csv", ("end.csv line 2", "end marker")),
]


@pytest.mark.parametrize(
    ("command", "words"), [pytest.param(*case, id=case[0][:60]) for case in REFERENCES]
)
@pytest.mark.usefixtures("model")
def test_a_mistake_that_the_model_shows_is_one_line(command, words, call, here):
    (here / "long.csv").write_text(f"key,value\nPeru,Lima\nCuba,{'very ' * 80}\n")
    (here / "end.csv").write_text("key,value\nPeru,Lima<|end|>\n")
    name, *rest = command.split()
    call(name, "--pairs", "pairs.csv", *rest, "--quiet").says(2, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is usable here")
def test_a_device_that_is_not_there_is_one_line(call, model):
    call(*BRACKET, "--device", "cuda").says(2, "--device", "use cpu")


# ------------------------------------------------------------------------------ verify


def flip(name):
    """Change the last byte of a file: part of the last number of its tensor."""

    def change(folder):
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return change


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40]) and None


def other_value(folder):
    text = (folder / "witness.json").read_text()
    (folder / "witness.json").write_text(text.replace("Paris", "Lyons"))


def other_tensor(folder):
    path = folder / "adapter_model.safetensors"
    edit_tensors(path, lambda tensors: tensors.update(other=tensors.pop("prompt_embeddings")))


def pipe(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def endless(name):
    def change(folder):
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")

    return change


WITNESSES = {
    # what is done to ./witness, words that the line must hold
    "no folder": (shutil.rmtree, ("witness", "nothing there")),
    "no witness.json": (lambda it: (it / "witness.json").unlink(), ("witness.json", "without")),
    "truncated": (cut("witness.json"), ("witness.json", "cannot be read")),
    "newer": (lambda it: edit(it / "witness.json", schema=99), ("witness.json", "schema 99")),
    "field missing": (lambda it: edit(it / "witness.json", model={}), ("witness.json", "model")),
    "no pairs": (lambda it: edit(it / "witness.json", pairs=[]), ("witness.json", "pairs")),
    "altered pairs": (other_value, ("witness.json", "altered pairs")),
    "altered prompt": (flip("adapter_model.safetensors"), ("adapter_model", "altered prompt")),
    "truncated prompt": (cut("adapter_model.safetensors"), ("adapter_model", "cannot be read")),
    "no tensor": (other_tensor, ("adapter_model", "prompt_embeddings")),
    "no adapter": (lambda it: (it / "adapter_model.safetensors").unlink(), ("adapter_model",)),
    "no adapter config": (lambda it: (it / "adapter_config.json").unlink(), ("adapter_config",)),
    **{
        f"{called} for {name}": (make(name), (name, f"{said} where a file should be"))
        for called, make, said in (("pipe", pipe, "a pipe"), ("zeros", endless, "a device"))
        for name in ("witness.json", "adapter_model.safetensors", "adapter_config.json")
    },
    "other method": (
        lambda it: edit(it / "adapter_config.json", peft_type="LORA"),
        ("adapter_config.json", "LORA"),
    ),
}


@pytest.mark.parametrize("kind", WITNESSES)
def test_a_witness_that_is_not_whole_is_one_line(kind, call, witness, monkeypatch):
    def start(*_arguments, **_settings):
        raise AssertionError("a process was started for a folder that is not whole")

    monkeypatch.setattr(
        "promptlimits.capacity.witness.fresh_process.verify_in_fresh_process", start
    )
    spoil, words = WITNESSES[kind]
    spoil(witness)
    call("verify", "witness", "--model", "tiny").says(2, *words)


def test_verify_takes_the_folder_one_stands_in(call, witness, monkeypatch):
    monkeypatch.chdir(witness)
    (witness / "witness.json").unlink()
    call("verify", ".").says(2, "witness.json")


@pytest.mark.parametrize("folder", ["", "pairs.csv", "/"])
def test_verify_of_no_witness_is_one_line(folder, call):
    call("verify", folder).says(2, "witness.json")


@pytest.fixture
def here_at_once(monkeypatch):
    """Verify in this process: the same code, without the seconds of a fresh one."""

    def verify(directory, **settings):
        return verify_witness(directory, **settings)

    monkeypatch.setattr(
        "promptlimits.capacity.witness.fresh_process.verify_in_fresh_process", verify
    )


def narrow(model):
    from promptlimits.testing.tiny_models import tiny_causal_lm

    shutil.rmtree(model)
    tiny_causal_lm(model, "gpt2", dim=16)


def other_weights(model):
    edit_tensors(model / "model.safetensors", lambda all_: all_["transformer.ln_f.weight"].add_(1))


VERIFIED = {
    # what is done to ./tiny, options, words that the line must hold
    "model gone": (shutil.rmtree, (), ("model of the witness", "--model")),
    "model not there": (shutil.rmtree, ("--model", "elsewhere/tiny"), ("elsewhere/tiny",)),
    "other weights": (
        other_weights,
        ("--model", "tiny"),
        ("weights", "--any-weights"),
    ),
    "narrower model": (narrow, ("--model", "tiny", "--any-weights"), ("width of 32", "16")),
    "no device": (lambda _model: None, ("--model", "tiny", "--device", "nonsense"), ("--device",)),
}


@pytest.mark.parametrize("kind", VERIFIED)
@pytest.mark.usefixtures("witness", "here_at_once")
def test_a_model_that_a_witness_cannot_use_is_one_line(kind, call, model):
    spoil, options, words = VERIFIED[kind]
    spoil(model)
    call("verify", "witness", *options).says(2, *words)


@pytest.mark.usefixtures("witness", "here_at_once")
def test_verify_says_which_model_answered(call, model):
    digest = model_hash(weight_files(model))
    ended = call("verify", "witness", "--model", "./tiny")
    assert ended.out.splitlines()[-1] == f"Model: 'tiny', from './tiny', SHA-256 {digest}"
    shown = json.loads(call("verify", "witness", "--model", "./tiny", "--json").out)
    assert shown["model"] == {"name": "tiny", "hash": digest, "from": "./tiny"}
    other_weights(model)
    ended = call("verify", "witness", "--model", "tiny", "--any-weights")
    assert ended.out.endswith("; NOT the weights that the witness was found with\n")


def called(witness, **fields):
    """Have a witness say something else of its model, consistently."""
    said = json.loads((witness / "witness.json").read_text())["model"] | fields
    edit(witness / "witness.json", model=said)
    if "reference" in fields:
        edit(witness / "adapter_config.json", base_model_name_or_path=fields["reference"])


@pytest.mark.parametrize("reference", ["tiny", "./tiny", "../here/tiny", "/tiny", "~", "a/b/c"])
@pytest.mark.usefixtures("model", "here_at_once")
def test_a_path_in_a_witness_is_not_followed(reference, call, witness):
    called(witness, reference=reference)
    call("verify", "witness").says(2, "catalog name or a hub id", repr(reference), "--model PATH")
    assert call("verify", "witness", "--model", "tiny").err == ""


@pytest.mark.usefixtures("here_at_once")
def test_a_hub_id_in_a_witness_is_no_folder_here(call, model, witness, monkeypatch):
    monkeypatch.setattr("promptlimits.nets.load.locate.snapshot_download", offline)
    shutil.copytree(model, "models/x")
    called(witness, reference="models/x")
    call("verify", "witness").says(2, "within reach", "'models/x'", "--model PATH")
    assert call("verify", "witness", "--model", "models/x").err == ""


def offline(*_arguments, **_settings):
    raise OSError("no network")


@pytest.mark.parametrize("field", ["name", "reference"])
@pytest.mark.usefixtures("here_at_once")
def test_a_name_of_the_catalog_stands_for_its_weights_alone(field, call, model, witness):
    """Whoever writes a witness can call any model smollm2-135m."""
    called(witness, **{field: "SmolLM2-135M"})
    verify = ("verify", "witness", "--model", "tiny")
    call(*verify).says(2, "smollm2-135m", "be on this machine", "promptlimits models get")
    assert call(*verify, "--any-weights").err == ""
    entry = find_entry("smollm2-135m")
    cached = cache_directory() / "models" / entry.cache_name
    shutil.copytree(model, cached)
    other_weights(cached)
    call(*verify).says(2, "names the catalog's smollm2-135m", "be found with its weights")
    assert call(*verify, "--any-weights").err == ""
    shutil.rmtree(cached)
    shutil.copytree(model, cached)
    assert call(*verify).err == ""
    for given in ((), ("--model", str(cached))):
        if field == "reference" or given:
            said = json.loads(call("verify", "witness", *given, "--json").out)["model"]
            assert (said["name"], said["from"]) == ("smollm2-135m", "catalog")


@pytest.mark.usefixtures("model", "here_at_once")
def test_verify_changes_nothing_on_disk(call, here, witness):
    for name in (".witness.old", ".witness.draft", ".witness.promptlimits-old"):
        shutil.copytree(witness, here / name)
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    assert call("verify", "witness", "--model", "tiny").err == ""
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


@pytest.mark.usefixtures("model", "here_at_once")
def test_verify_reads_what_a_kill_left_beside_its_place(call, here, witness):
    whole = call("verify", "witness", "--model", "tiny").out
    left = witness.rename(here / ".witness.promptlimits-old")
    ended = call("verify", "witness", "--model", "tiny")
    assert (ended.out, ended.err) == (whole, "")
    assert left.is_dir()
    assert not witness.exists()


@pytest.mark.slow  # starts the installed command, which starts a fresh process with torch
@pytest.mark.usefixtures("model")
def test_a_folder_whose_name_begins_with_a_dash_is_verified(spawn, here, witness):
    witness.rename(here / "-w")
    shutil.move("tiny", "-tiny")
    ended = spawn("verify", "--model", "-tiny", "--", "-w")
    assert (ended.code, ended.err) == (1, "")
    assert "Model: '-tiny', from '-tiny'" in ended.out


@pytest.mark.slow  # starts the installed command, which starts a fresh process with torch
@pytest.mark.usefixtures("witness", "model")
def test_errors_of_the_fresh_process_are_one_line_too(spawn):
    spawn("verify", "witness", "--model", "elsewhere").says(2, "elsewhere")
    spawn("verify", "witness", "--model", "tiny", "--device", "nonsense").says(2, "--device")


@pytest.mark.usefixtures("witness", "model", "here_at_once")
def test_a_prompt_that_holds_nothing_ends_in_1(call):
    ended = call("verify", "witness", "--model", "tiny")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.splitlines()[0].startswith("NOT CONFIRMED 'France:'")


@pytest.mark.usefixtures("witness", "model", "here_at_once")
def test_the_record_of_a_verification_that_does_not_fit_its_pairs_is_one_line(call, witness):
    answers = {"answers": [{"counted": True}]}
    edit(witness / "witness.json", verification=answers)
    call("verify", "witness", "--model", "tiny").says(2, "witness.json")
