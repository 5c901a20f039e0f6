"""Adapters as stock PEFT saves them, and what the model answers behind them.

The oracle is a slow loop: the saved folder, loaded with stock PEFT, is run over the whole sequence
for every token, without a cache.
"""

import dataclasses
import json
from pathlib import Path

import torch
from tests.capacity.witness.witness_cases import KEYS, MOST_TOKENS, answers_that_end

from promptlimits.capacity.adapter.folder import read_foreign_adapter
from promptlimits.capacity.task.encoded import EncodedTask
from promptlimits.capacity.task.random_tokens import RandomTask
from promptlimits.nets.protocol import ModelCard

P = 3


def _lora(**options):
    def config(peft, linear):
        return peft.LoraConfig(task_type="CAUSAL_LM", r=4, **{"target_modules": linear, **options})

    return config


def _prompt(name, **options):
    def config(peft, linear):
        return getattr(peft, name)(task_type="CAUSAL_LM", num_virtual_tokens=P, **options)

    return config


def _ia3(peft, linear):
    # Of Llama; the last one scales what goes in.
    return peft.IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    )


def _patterned(peft, linear):
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        target_modules="all-linear",
        use_rslora=True,
        rank_pattern={linear[0]: 2},
        alpha_pattern={linear[-1]: 7},
    )


PROMPTS = {
    "prompt tuning": _prompt("PromptTuningConfig"),
    "p-tuning": _prompt("PromptEncoderConfig", encoder_hidden_size=16),
    "p-tuning LSTM": _prompt(
        "PromptEncoderConfig", encoder_hidden_size=16, encoder_reparameterization_type="LSTM"
    ),
    "prefix tuning": _prompt("PrefixTuningConfig"),
    "projected prefix": _prompt(
        "PrefixTuningConfig", prefix_projection=True, encoder_hidden_size=16
    ),
    "CARTRIDGE": _prompt("CartridgeConfig"),
}
MODULES = {
    "LoRA": _lora(),
    "DoRA": _lora(use_dora=True),
    "LoRA with patterns": _patterned,
    "LoRA and a head": _lora(modules_to_save=["lm_head"]),
    "LoRA and biases": _lora(bias="all"),
    "LoRA of embeddings": _lora(target_modules=["embed_tokens"]),
    "IA3": _ia3,
}
CONFIGS = PROMPTS | MODULES
_LINEAR = {"gpt2": ["c_attn"], "gpt_neox": ["query_key_value"]}


def save_adapter(directory, model, family, name, *, seed=0, scale=0.7):
    """An adapter of random numbers, saved as stock PEFT saves what it has trained."""
    import peft
    from transformers import AutoModelForCausalLM

    from promptlimits.nets.load.network import quiet

    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        config = CONFIGS[name](peft, _LINEAR.get(family, ["q_proj", "v_proj"]))
        adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
        with torch.no_grad():
            for parameter in (p for p in adapted.parameters() if p.requires_grad):
                parameter.add_(torch.randn_like(parameter), alpha=scale)
        adapted.save_pretrained(directory, save_embedding_layers=False)
    return Path(directory)


@torch.no_grad()
def slow_answer(model, key_ids):
    ids = list(key_ids)
    for _ in range(MOST_TOKENS):
        logits = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits
        ids.append(int(logits[0, -1].argmax()))
    return tuple(ids[len(key_ids) :])


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterCase:
    """A tiny model, an adapter, and what the model answers behind it by the slow loop."""

    model: Path
    card: ModelCard
    folder: Path
    task: EncodedTask

    @property
    def adapter(self):
        return read_foreign_adapter(self.folder)


def task_of(pairs, kind=EncodedTask):
    return kind(
        name="by the slow loop",
        pairs=tuple(pairs),
        places=tuple(f"pair {index}" for index in range(len(pairs))),
        answer_set_size=len(pairs),
        answer_set_text="these",
        source="a test",
    )


def adapter_case(directory, model, family, name, card_of):
    """An adapter behind which several keys have answers that end, and those answers.

    A random model hardly ever says its own end marker: the token that ends most answers is made
    its end marker.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from promptlimits.nets.load.network import quiet

    tokenizer = AutoTokenizer.from_pretrained(model)
    key_ids = {key: tuple(tokenizer(key, add_special_tokens=False).input_ids) for key in KEYS}

    def drawn(seed):
        folder = save_adapter(directory / f"adapter-{seed}", model, family, name, seed=seed)
        with quiet():
            base = AutoModelForCausalLM.from_pretrained(model)
            adapted = PeftModel.from_pretrained(base, folder).eval()
            return folder, {key: slow_answer(adapted, ids) for key, ids in key_ids.items()}

    folder, pairs = answers_that_end(model, tokenizer, key_ids, drawn)
    # The tiny tokenizer of Qwen2 closes every text by itself.
    task = task_of(pairs, RandomTask if family == "qwen2" else EncodedTask)
    return AdapterCase(model=model, card=card_of(model), folder=folder, task=task)


def settings_of(folder):
    return json.loads((folder / "adapter_config.json").read_text())
