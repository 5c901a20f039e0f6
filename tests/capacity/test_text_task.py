"""A text held by one prompt, from the file to stock PEFT, its first token included."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptlimits.capacity.search.attempt import Workplace, attempt
from promptlimits.capacity.store.sqlite import Store
from promptlimits.capacity.task.resolve import load_task
from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.outcome import Outcome
from promptlimits.capacity.witness.format import save_witness
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.routes.causal import HuggingFaceCausalLM
from promptlimits.testing.tiny_models import tiny_causal_lm

TEXT = "the dog and the cat: one two"
# One pair is exact or not: patience with it lasts as long as its steps.
TRAINING = TrainingConfig(prompt_tokens=4, learning_rate=0.3, max_steps=300, patience=300)


@pytest.mark.slow  # trains for some fifty steps, and decodes with stock tools
# "text:FILE" is natural text; the other is a text of random tokens behind a random key.
@pytest.mark.parametrize(
    ("reference", "posed_as", "tokens"), [("text:{},6", "text", 6), ("random:1,1,6", "ids", 6)]
)
def test_a_prompt_holds_a_text_and_stock_tools_say_so(
    tmp_path: Path, reference: str, posed_as: str, tokens: int
) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT + "\n", encoding="utf-8")
    directory = tiny_causal_lm(tmp_path / "model", "gpt2")
    parts = load_parts(str(directory))
    model = HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)
    task = load_task(reference.format(file), model.codec, seed=1)
    (pair,) = task.pairs
    assert (len(pair.key_ids), len(pair.value_ids)) == (1, tokens + 1)
    with Store.open(tmp_path / "store.sqlite") as store:
        place = Workplace(model=model, store=store, task_hash=task.hash, provenance={})
        done = attempt(place, task.pairs, TRAINING, warm=None, should_stop=lambda: None)
    assert done.outcome is Outcome.SOLVED
    assert done.held == (0,)
    save_witness(
        tmp_path / "witness",
        prompt=done.prompt,
        card=model.card,
        task_name=task.name,
        task_hash=task.hash,
        pairs=task.pairs,
        posed_as=posed_as,  # type: ignore[arg-type]
    )
    verified = verify_witness(tmp_path / "witness", model_path=str(directory))
    (answer,) = verified.answers
    assert answer.exact, answer.fault
    assert answer.generated_ids == pair.value_ids
    if posed_as == "text":
        assert TEXT.startswith(answer.decoded)
        assert answer.decoded == pair.value
