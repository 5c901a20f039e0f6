"""One optimiser step with a shared prefix against the same step with the prompt in front of each.

    python benchmarks/shared_prefix.py            SmolLM2-135M and a tiny model, some minutes
    python benchmarks/shared_prefix.py --quick    the tiny model, seconds
    python benchmarks/shared_prefix.py --json     JSON on standard output

Both sides run the same frozen weights, in one process, in turn; the ratio of their medians is
what counts. The plain side is what a PEFT loop does: one sequence for each pair, each with its
own copy of the prompt, logits at every position. Their gradients are compared, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from promptlimits.models.huggingface.causal import HuggingFaceCausalLM
from promptlimits.models.huggingface.concatenation import concatenated_logits
from promptlimits.models.huggingface.load import load_parts
from promptlimits.models.protocol import EncodedPair, PackedPairs, pack
from promptlimits.testing.tiny_models import tiny_causal_lm

CASES = ((64, 8, 8), (64, 64, 8), (16, 1, 6))
"""Pairs, prompt tokens, tokens of each pair."""


def load(reference: str) -> tuple[HuggingFaceCausalLM, HuggingFaceCausalLM]:
    """The model with the shared prefix, and the same weights with stock attention."""
    shared = load_parts(reference)
    stock = load_parts(reference)
    stock.model.set_attn_implementation("sdpa")
    plain = HuggingFaceCausalLM(stock.model, card=stock.card, codec=stock.codec)
    # The wrapper switches attention over; the plain side must keep the stock one.
    plain._model.set_attn_implementation("sdpa")
    return HuggingFaceCausalLM(shared.model, card=shared.card, codec=shared.codec), plain


def pairs_of(count: int, tokens: int, vocabulary: int) -> PackedPairs:
    """Random pairs of `tokens` input tokens, half of them read."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocabulary, (count, tokens + 1), generator=generator).tolist()
    half = (tokens + 1) // 2
    return pack(
        [
            EncodedPair(key="", value="", key_ids=tuple(row[:half]), value_ids=tuple(row[half:]))
            for row in ids
        ]
    )


def gradient(logits: Callable[[Tensor], Tensor], prompt: Tensor, pairs: PackedPairs) -> Tensor:
    """Gradient of the mean loss with respect to the prompt."""
    leaf = prompt.detach().requires_grad_(True)
    cross_entropy(logits(leaf)[0], pairs.targets).backward()
    if leaf.grad is None:
        raise AssertionError("the loss does not depend on the prompt")
    return leaf.grad


def measure(reference: str, case: tuple[int, int, int], repeats: int) -> dict[str, object]:
    """Seconds of a step on both sides, in turn, and how far their gradients are apart."""
    count, prompt_tokens, tokens = case
    shared, plain = load(reference)
    pairs = pairs_of(count, tokens, shared.card.vocabulary)
    ids = torch.arange(prompt_tokens) % shared.card.vocabulary
    prompt = shared.embed(ids)[None].clone()

    def by_sharing(leaf: Tensor) -> Tensor:
        return shared.next_token_logits(leaf, pairs)

    def by_repeating(leaf: Tensor) -> Tensor:
        return concatenated_logits(plain._model, leaf, plain.embed(pairs.input_ids), pairs)

    seconds: dict[str, list[float]] = {"shared": [], "repeated": []}
    gradients: dict[str, Tensor] = {}
    for repeat in range(repeats + 1):
        for name, side in (("shared", by_sharing), ("repeated", by_repeating)):
            began = time.perf_counter()
            gradients[name] = gradient(side, prompt, pairs)
            if repeat:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    gap = (gradients["shared"] - gradients["repeated"]).norm() / gradients["repeated"].norm()
    return {
        "model": shared.card.name,
        "pairs": count,
        "prompt_tokens": prompt_tokens,
        "tokens": tokens,
        "shared_seconds": medians["shared"],
        "repeated_seconds": medians["repeated"],
        "ratio": medians["repeated"] / medians["shared"],
        "relative_gradient_gap": float(gap),
    }


def main() -> None:
    """Run every case and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the tiny model only")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.add_argument("--repeats", type=int, default=3, help="counted steps of each side")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tiny = tiny_causal_lm(Path(folder) / "tiny-llama", "llama", dim=128, layers=4)
        models = [str(tiny)] if options.quick else [str(tiny), "smollm2-135m"]
        cases = [
            measure(reference, case, options.repeats) for reference in models for case in CASES
        ]
    if options.json:
        print(json.dumps({"threads": torch.get_num_threads(), "cases": cases}, indent=1))
        return
    for case in cases:
        print(
            f"{case['model']:>14}  {case['pairs']:>3} pairs, {case['prompt_tokens']:>2} prompt "
            f"tokens, {case['tokens']} each: {case['ratio']:.1f} times as fast "
            f"({case['shared_seconds']:.3f} s against {case['repeated_seconds']:.3f} s)"
        )


if __name__ == "__main__":
    main()
