"""`score`: the record, the lines for people, and what is refused before anything is decoded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Call = Callable[..., Any]
LINEAR = ["c_attn"]


@pytest.fixture(scope="session")
def saved(tiny, tmp_path_factory):
    """An adapter of the tiny model that stock PEFT has saved, by its kind."""
    import peft
    from transformers import AutoModelForCausalLM

    from promptlimits.nets.load.network import quiet

    configs = {
        "lora": peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=LINEAR),
        "cartridge": peft.CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    }

    def save(kind):
        directory = tmp_path_factory.mktemp("adapter") / kind
        with quiet():
            base = AutoModelForCausalLM.from_pretrained(tiny)
            peft.get_peft_model(base, configs[kind]).save_pretrained(directory)
        return directory

    return save


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    """Decode in this process what is decoded in a fresh one, which costs seconds."""
    from promptlimits.capacity.adapter import score as adapter_score
    from promptlimits.capacity.adapter.decoding import Request, decode_with_and_without
    from promptlimits.capacity.witness.format import write_verification
    from promptlimits.capacity.witness.verify import verify_witness

    def decoded(module, arguments, **_):
        asked = Request.model_validate_json(Path(arguments[0]).read_text(encoding="utf-8"))
        return json.loads(json.dumps({"decoded": decode_with_and_without(asked).to_json()}))

    def confirm(directory, verifier, **_):
        found = verify_witness(directory, model_path=verifier.model_path, device=verifier.device)
        write_verification(directory, found)
        return found

    monkeypatch.setattr(adapter_score, "run_fresh", decoded)
    monkeypatch.setattr(adapter_score, "confirm", confirm)


@pytest.fixture
def answered(here, tiny):
    """A model, a key, and the word that it answers by itself: what it says then is made its end."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from promptlimits.nets.load.network import quiet
    from promptlimits.testing.tiny_models import WORDS

    model = Path(shutil.copytree(tiny, here / "own"))
    with quiet():
        network = AutoModelForCausalLM.from_pretrained(model).eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
    for key in (f"{one} {other}" for one in WORDS for other in WORDS):
        ids = tokenizer(f"{key}:", return_tensors="pt").input_ids
        with torch.no_grad():
            for _ in range(2):
                ids = torch.cat([ids, network(ids).logits[:, -1:].argmax(-1)], dim=1)
        value, end = ids[0, -2:].tolist()
        if value != end and (word := tokenizer.decode([value])).strip() in WORDS and word[0] == " ":
            break
    else:
        raise AssertionError("the tiny model answers no key with a word")
    config = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": end}))
    return model, key, word.strip()


def test_the_record_of_a_prefix_and_its_witness(call, saved, tiny, here):
    adapter = saved("cartridge")
    ended = call(
        "score",
        str(adapter),
        "--model",
        str(tiny),
        "--pairs",
        "pairs.csv",
        "--out",
        "a b",
        "--json",
    )
    assert ended.code == 0, ended
    record = json.loads(ended.out)
    assert {"exact", "of", "credited", "unprompted", "tools"} <= record.keys()
    assert (record["of"], len(record["answers"])) == (4, 4)
    assert {"key", "value", "decoded", "exact", "unprompted"} <= record["answers"][0].keys()
    assert record["exact"] == sum(answer["exact"] for answer in record["answers"])
    assert record["adapter"]["kind"] == "CARTRIDGE"
    assert record["adapter"]["virtual_tokens"] == 2
    assert len(record["model"]["model_hash"]) == 64
    assert record["tools"].startswith("stock PEFT ")
    assert record["tools"].endswith(", greedy generate, float32")
    assert (record["witness"], record["reason"]) == ("a b/witness", "")
    assert json.loads((here / "a b" / "score.json").read_text()) == record
    witness = json.loads((here / "a b" / "witness" / "witness.json").read_text())
    assert witness["kind"] == "prefix"
    assert witness["verification"]["pairs_exact"] == record["exact"]
    assert witness["extra"]["adapter"]["sha256"] == record["adapter"]["sha256"]
    again = call(
        "score", str(adapter), "--model", str(tiny), "--pairs", "pairs.csv", "--out", "a b"
    )
    assert again.code == 0
    assert f"Check:  promptlimits verify 'a b/witness' --model {tiny}" in again.out.splitlines()


def test_a_lora_that_has_learned_nothing_has_no_credit_and_no_witness(call, saved, tiny, here):
    """PEFT starts a LoRA so that it changes nothing: both columns are one."""
    ended = call(
        *("score", str(saved("lora")), "--model", str(tiny), "--pairs", "pairs.csv"),
        *("--out", "out", "--json"),
    )
    record = json.loads(ended.out)
    assert ended.code == 0
    assert record["credited"] == 0
    assert [a["decoded"] for a in record["answers"]] == [
        a["decoded_unprompted"] for a in record["answers"]
    ]
    assert record["witness"] is None
    assert record["reason"] == "there is no kind of witness for LORA yet"
    assert not (here / "out" / "witness").exists()


def test_pairs_answered_without_the_adapter_are_said_beside_the_count(call, saved, answered, here):
    model, key, value = answered
    (here / "own.csv").write_text(f"key,value\n{key},{value}\nItaly,Rome\n", encoding="utf-8")
    ended = call("score", str(saved("lora")), "--model", str(model), "--pairs", "own.csv")
    assert ended.code == 0, ended
    assert "1 of 2 pairs exact (1 of them also without the adapter): stock PEFT" in ended.out


def test_nothing_is_written_where_no_folder_is_named(call, saved, tiny, here):
    before = sorted(here.rglob("*"))
    ended = call("score", str(saved("cartridge")), "--model", str(tiny), "--pairs", "pairs.csv")
    assert ended.code == 0
    assert "Witness:  none (no folder was named with --out)" in ended.out.splitlines()
    assert sorted(here.rglob("*")) == before


def test_a_folder_that_no_witness_may_replace_is_refused_before_anything_is_decoded(
    call, saved, tiny, here
):
    (here / "o" / "witness").mkdir(parents=True)
    (here / "o" / "witness" / "mine.txt").write_text("mine")
    asked = ("--model", str(tiny), "--pairs", "pairs.csv", "--out", "o")
    ended = call("score", str(saved("cartridge")), *asked)
    ended.says(2, "witness must be a new folder or an older witness")
    assert "decoding" not in ended.err


def test_mistakes_are_one_line_each(call, saved, tiny, here):
    def scored(adapter, *more):
        pairs = () if "--pairs" in more else ("--pairs", "pairs.csv")
        return call("score", str(adapter), "--model", str(tiny), "--quiet", *pairs, *more)

    lora = saved("lora")
    scored("nowhere").says(2, "nowhere must be the folder of an adapter", "nothing there")
    scored(tiny).says(2, "must hold adapter_config.json", "a model (it has config.json)")
    scored(lora, "--pairs", "nowhere.csv").says(2, "nowhere.csv")
    (here / "poem.txt").write_text("red blue green")
    scored(lora, "--pairs", "text:poem.txt").says(2, "--pairs must be a list of pairs")
    (here / "long.csv").write_text("key,value\nFrance," + "red " * 200 + "\n")
    scored(lora, "--pairs", "long.csv").says(2, "long.csv line 2", "context of 128 tokens")
    settings = json.loads((lora / "adapter_config.json").read_text())
    for change, words in (
        ({"task_type": "SEQ_2_SEQ_LM"}, "for encoder-decoders"),
        ({"init_lora_weights": "corda"}, "changes the model's own weights"),
    ):
        (lora / "adapter_config.json").write_text(json.dumps(settings | change))
        scored(lora).says(2, words)
    (lora / "adapter_model.safetensors").rename(lora / "adapter_model.bin")
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    scored(lora).says(2, "adapter_model.bin, a pickle", "convert it")
    call("score", str(lora), "--pairs", "pairs.csv").says(2, "--model")


def test_an_adapter_of_another_architecture_is_one_line(call, saved, here):
    from promptlimits.testing.tiny_models import tiny_causal_lm

    other = tiny_causal_lm(here / "llama", "llama")
    ended = call(
        *("score", str(saved("lora")), "--model", str(other), "--pairs", "pairs.csv", "--quiet")
    )
    ended.says(2, "the adapter must fit the model", "transformer.h.0.attn.c_attn")
