"""Tiny models with prompts behind which they answer something, and what they answer.

The oracle is the slow loop of `greedy`: prompt and tokens end to end through the network, no
cache, no PEFT, one token at a time. A KV prefix is the cache, made anew for every token.
"""

import dataclasses
import json
from pathlib import Path

import torch

from promptlimits.capacity.witness.format import save_witness
from promptlimits.capacity.witness.verify import verify_witness
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import EncodedPair, ModelCard

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
    prefix_shape: PrefixShape | None = None

    def save(self, directory, **changes):
        given = {
            "prompt": self.prompt,
            "card": self.card,
            "pairs": self.pairs,
            "prefix_shape": self.prefix_shape,
            **changes,
        }
        save_witness(directory, task_name="capitals", task_hash="0" * 64, **given)
        return directory

    def verify(self, directory, **options):
        return verify_witness(directory, model_path=str(self.model), **options)


def card_of(model):
    return dataclasses.replace(load_parts(str(model)).card, name="tiny")


@torch.no_grad()
def greedy(network, prompt, key_ids, prefix_shape=None):
    ids = list(key_ids)
    for _ in range(MOST_TOKENS):
        if prefix_shape is None:
            tokens = network.get_input_embeddings()(torch.tensor([ids]))
            inputs = torch.cat([prompt.unsqueeze(0), tokens], dim=1)
            logits = network(inputs_embeds=inputs, use_cache=False).logits
        else:
            cache = cached(prompt, prefix_shape)
            logits = network(input_ids=torch.tensor([ids]), past_key_values=cache).logits
        ids.append(int(logits[0, -1].argmax()))
    return tuple(ids[len(key_ids) :])


def cached(prefix, shape):
    """A prefix as transformers' cache, number by number as PEFT's documentation has it."""
    from transformers import DynamicCache

    numbers = prefix.view(len(prefix), shape.layers, 2, shape.kv_heads, shape.head_dim)
    cache = DynamicCache()
    for layer in range(shape.layers):
        keys, values = (numbers[:, layer, part].transpose(0, 1)[None] for part in (0, 1))
        cache.update(keys, values, layer)
    return cache


def cut_at(end, answers):
    """Answers that say `end`, but not at once, up to there: the longest first."""
    cut = {key: ids[: ids.index(end) + 1] for key, ids in answers.items() if end in ids[1:]}
    return dict(sorted(((k, v) for k, v in cut.items() if len(v) > 1), key=lambda kv: -len(kv[1])))


def answers_that_end(model, tokenizer, key_ids, drawn):
    """The first of what is drawn behind which three keys have answers that end, and these pairs.

    The token that ends most of them becomes the model's end marker.
    """
    for seed in range(20):
        found, answers = drawn(seed)
        tokens = {token for answer in answers.values() for token in answer} - {0}
        end, ended = max(
            ((end, cut_at(end, answers)) for end in sorted(tokens)), key=lambda each: len(each[1])
        )
        if len(ended) >= 3 and len(next(iter(ended.values()))) >= 3:
            break
    else:
        raise AssertionError("no seed gives three answers that end")
    edit(model, "generation_config.json", lambda config: config.update(eos_token_id=end))
    return found, [
        EncodedPair(key=key, value=tokenizer.decode(ids[:-1]), key_ids=key_ids[key], value_ids=ids)
        for key, ids in ended.items()
    ]


def case_of(model, kind="soft"):
    """A random prompt of a kind behind which several keys have answers that end.

    A random model hardly ever says its own end marker, so the token that ends most answers
    is made its end marker.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    key_ids = {key: tuple(tokenizer(key).input_ids) for key in KEYS}
    shape = None if kind == "soft" else PrefixShape.of(network)
    width = 32 if shape is None else shape.width

    def drawn(seed):
        prompt = torch.randn(PROMPT_TOKENS, width, generator=torch.Generator().manual_seed(seed))
        return prompt, {key: greedy(network, prompt, ids, shape) for key, ids in key_ids.items()}

    prompt, pairs = answers_that_end(model, tokenizer, key_ids, drawn)
    return Case(
        model=model,
        card=card_of(model),
        prompt=prompt,
        pairs=tuple(pairs),
        prefix_shape=shape,
    )


def answering(case, pair, ids):
    """The pair, said to be answered with other ids, of which its value is the text."""
    from transformers import AutoTokenizer

    value = AutoTokenizer.from_pretrained(case.model).decode(ids[:-1])
    return dataclasses.replace(pair, value=value, value_ids=tuple(ids))


def wrong(case, pair):
    """The pair with an answer that the model does not give."""
    return answering(case, pair, (pair.value_ids[0] ^ 1, *pair.value_ids[1:]))


def edit(directory, name, change):
    path = directory / name
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
