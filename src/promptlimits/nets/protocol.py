"""What training needs from a frozen model, and the packed form in which pairs reach it.

The model's laws, which every family is tested for:

1. `head.logits(prepare(parts).read_states(prompts))` equals running each pair on its own behind its
   own copy of its prompt (concatenation), in value and in gradient.
2. Part b of a batch equals the same part run alone.
3. No weight is trainable and no call changes the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cached_property
from typing import ClassVar, Final, Protocol, TypeAlias

import torch
from pydantic import ConfigDict
from torch import Tensor

from promptlimits.base.files import JsonObject
from promptlimits.nets.device import sent
from promptlimits.nets.prefix_shape import PrefixShape


@dataclass(frozen=True, kw_only=True)
class EncodedPair:
    """A key and its value as text and as token ids.

    Attributes:
        key: The key as text.
        value: The value as text, without the end marker.
        key_ids: Token ids of the key, as the tokenizer gives them for the bare text.
        value_ids: Token ids of joiner and value, the end marker last. Never empty.
        joiner: What stands between key and value.
        also: Text and token ids of other answers that count as well; nothing is trained for
            them. The ids are of the joiner and the text, and end in the end marker.
    """

    key: str
    value: str
    key_ids: tuple[int, ...]
    value_ids: tuple[int, ...]
    joiner: str = ""
    also: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @classmethod
    def of_ids(cls, key_ids: Iterable[int], value_ids: Iterable[int]) -> EncodedPair:
        """A pair of token ids that no text was given for.

        Args:
            key_ids: Token ids of the key.
            value_ids: Token ids of the value, the end marker last.

        Returns:
            The pair, its texts empty.
        """
        return cls(key="", value="", key_ids=tuple(key_ids), value_ids=tuple(value_ids))

    def to_json(self) -> JsonObject:
        """The pair as a witness records it, and as `pairs --json` shows it."""
        return {
            "key": self.key,
            "joiner": self.joiner,
            "value": self.value,
            "key_ids": list(self.key_ids),
            "value_ids": list(self.value_ids),
            "also": [{"value": value, "value_ids": list(ids)} for value, ids in self.also],
        }

    @property
    def input_ids(self) -> tuple[int, ...]:
        """Tokens the model reads: key and value, without the end marker."""
        return self.key_ids + self.value_ids[:-1]

    @property
    def answers(self) -> tuple[EncodedPair, ...]:
        """The pair with each answer that counts in the place of its value, its own first."""
        others = (replace(self, value=value, value_ids=ids, also=()) for value, ids in self.also)
        return (replace(self, also=()) if self.also else self, *others)

    @property
    def longest(self) -> int:
        """Most tokens of key and an answer that the model reads."""
        return len(self.key_ids) + self.longest_answer - 1

    @property
    def longest_answer(self) -> int:
        """Most tokens of an answer that counts, the end marker included."""
        return max((len(self.value_ids), *(len(ids) for _, ids in self.also)))


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedPairs:
    """K pairs, their input tokens end to end; no padding is computed with.

    Attributes:
        input_ids: (T,) token ids of all pairs.
        lengths: (K,) input tokens of each pair; they sum to T.
        read: (R,) indices into T of the positions whose next token is scored.
        targets: (R,) the token that must follow each read position.
        pair_of_read: (R,) the pair that each read position belongs to.
    """

    input_ids: Tensor
    lengths: Tensor
    read: Tensor
    targets: Tensor
    pair_of_read: Tensor

    @property
    def num_pairs(self) -> int:
        """K."""
        return int(self.lengths.numel())

    # --- for who lays out a batch: worked out once, by the host -----------------------------

    @cached_property
    def on_host(self) -> PackedPairs:
        """The same in the host's memory, so that nothing below waits for a device."""
        return self if self.lengths.device.type == "cpu" else self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> PackedPairs:
        """The same in a device's memory."""
        moved = PackedPairs(
            **{one.name: sent(getattr(self, one.name), device) for one in fields(self)}
        )
        if device.type != "cpu":  # what is here need not be fetched again
            vars(moved)["on_host"] = self.on_host
        return moved

    @cached_property
    def longest(self) -> int:
        """L, most input tokens of a pair."""
        return int(self.on_host.lengths.max())

    @cached_property
    def places(self) -> Tensor:
        """(T,) place of each input token within its pair, on the host."""
        return owners_and_places(self.on_host.lengths)[1]

    @cached_property
    def reads_in_order(self) -> Tensor:
        """(R,) the reads pair after pair, each pair's in the order given, on the host."""
        return self.on_host.pair_of_read.argsort(stable=True)

    @cached_property
    def reads_of_pair(self) -> Tensor:
        """(K,) how many reads each pair has, on the host."""
        return self.on_host.pair_of_read.bincount(minlength=self.num_pairs)


def pack(pairs: Sequence[EncodedPair], *, device: torch.device | str = "cpu") -> PackedPairs:
    """Pack pairs end to end and mark the positions that are scored.

    A pair with key ids k_1..k_a and value ids v_1..v_b (v_b the end marker) contributes the
    a + b - 1 inputs k_1..k_a v_1..v_{b-1}; its last b positions are read.

    Args:
        pairs: At least one pair; every key and value has at least one token.
        device: Where the tensors are made.

    Returns:
        The packed pairs.
    """
    input_ids: list[int] = []
    lengths: list[int] = []
    read: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for index, pair in enumerate(pairs):
        tokens = pair.input_ids
        end = len(input_ids) + len(tokens)
        read.extend(range(end - len(pair.value_ids), end))
        targets.extend(pair.value_ids)
        owner.extend([index] * len(pair.value_ids))
        input_ids.extend(tokens)
        lengths.append(len(tokens))

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long)

    packed = PackedPairs(
        input_ids=tensor(input_ids),
        lengths=tensor(lengths),
        read=tensor(read),
        targets=tensor(targets),
        pair_of_read=tensor(owner),
    )
    device = torch.device(device)
    return packed if device.type == "cpu" else packed.to(device)


def owners_and_places(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Of items of given lengths, end to end: each row's item, and its place within it."""
    items = torch.arange(lengths.numel(), device=lengths.device)
    owner = torch.repeat_interleave(items, lengths)
    rows = torch.arange(owner.numel(), device=lengths.device)
    return owner, rows - (lengths.cumsum(0) - lengths)[owner]


class PromptKind(StrEnum):
    """What a trained prompt is; either kind is a matrix (P, W) of float32 numbers.

    A soft prompt's row is an input embedding: W is D. A prefix's row is what one cached token
    holds: for each layer its keys and then its values, head after head, W = 2 layers heads_kv
    head_dim numbers (keys as they stand in the cache, rotated). It is the row of PEFT's
    PREFIX_TUNING, so that both kinds are saved as they are trained.
    """

    SOFT = "soft"
    PREFIX = "prefix"


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Pairs behind one prompt: a problem, or as many of its pairs as fit into memory.

    Attributes:
        prompt_tokens: P_b, tokens of the prompt; 0 for none.
        pairs: The pairs.
    """

    prompt_tokens: int
    pairs: PackedPairs


class PreparedBatch(Protocol):
    """Parts, and all that does not depend on their prompts, computed once."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts, in order."""
        ...

    @property
    def kind(self) -> PromptKind:
        """What the prompts are."""
        ...

    def read_states(self, prompts: Tensor) -> Tensor:
        """States (R, S) at the read positions of all parts, one part after the other.

        Behind the parts' prompts (sum of P_b, W) end to end, of any float dtype.
        """
        ...

    def kept_bytes(self, states: Tensor) -> int:
        """Memory kept, out of autograd's sight, for the reverse pass of what was just read."""
        ...


Memory: TypeAlias = Callable[[int, int, Tensor], Tensor]
"""From rows, columns and a tensor of the dtype and device wanted to a matrix to write to."""


class ReadHead(Protocol):
    """From what a model computes at a read position to the logits of its next token.

    Apart from the model's body, so that logits are formed a few rows at a time: with a
    large vocabulary they are most of the memory.
    """

    @property
    def vocabulary(self) -> int:
        """V."""
        ...

    def logits(self, states: Tensor, memory: Memory | None = None) -> Tensor:
        """(R, V) from states (R, S); differentiable where they get memory of their own."""
        ...

    def pull_back(self, gradient: Tensor) -> Tensor:
        """Gradient (R, S) of a function of the logits from its gradient (R, V) in them."""
        ...

    def pull_back_tokens(self, tokens: Tensor, factor: float, into: Tensor) -> Tensor:
        """Add to `into` (R, S) a multiple of the gradient of each row's logit of a token (R, 1).

        Of any dtype as wide as the weights', changed in place and returned.
        """
        ...

    def blocks(self, most: int) -> Sequence[ReadHead]:
        """Heads of stretches of the vocabulary, end to end: their pull-backs add up to its own."""
        ...


class TextCodec(Protocol):
    """Text to token ids and back, as stock tools will do it when the prompt is used."""

    @property
    def end_id(self) -> int:
        """The end marker that every value ends in: a token at which stock `generate` stops."""
        ...

    @property
    def end_ids(self) -> tuple[int, ...]:
        """All tokens at which stock `generate` stops, `end_id` first."""
        ...

    @property
    def start_text(self) -> str:
        """Text whose key is the beginning-of-text token alone; may be empty."""
        ...

    def encode_key(self, text: str) -> tuple[int, ...]:
        """Ids of a key: exactly what the stock tokenizer returns for the bare text."""
        ...

    def encode_value(self, text: str) -> tuple[int, ...]:
        """Ids of a text that follows a key, exactly as given, without the end marker."""
        ...

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of a text that begins where the model begins, without markers."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids that stand alone, special tokens left out."""
        ...

    def decode_value(self, ids: Sequence[int]) -> str:
        """Text of ids as they stand behind a key, special tokens shown."""
        ...

    def chat(self, turns: Sequence[tuple[str, str]]) -> str:
        """The key that messages (role, content) make, as the chat template writes them."""
        ...

    def plain_token_ids(self) -> tuple[int, ...]:
        """Ids of tokens that are ordinary text: not special, and one token when re-encoded."""
        ...


NO_LIMIT: Final = 2**20
"""Context length of a model that has none: no text here is as long."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a record says about a frozen model.

    Attributes:
        name: Short name for people.
        reference: What the user gave: catalog name, directory, GGUF file or hub id.
        path: Directory that stock tools load it from, or the hub id.
        model_hash: SHA-256 over the weights and all beside them that decides what it answers:
            configuration, tokenizer, end markers.
        parameters: Number of weights.
        dim: D, width of a prompt token.
        layers: Number of transformer blocks.
        vocabulary: V.
        context_length: Most tokens of one sequence, prompt included; `NO_LIMIT` where positions
            end nowhere, as in recurrent models.
        compute_dtype: Name of the dtype it computes with, such as "float32".
        decodes_from_cache: Whether stock `generate` goes on from its cache behind a prompt; if
            not, it reads the whole text again for each token.
        notes: Facts a report must show, such as "4-bit weights dequantised to float32".
    """

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    name: str
    reference: str
    path: str
    model_hash: str
    parameters: int
    dim: int
    layers: int
    vocabulary: int
    context_length: int
    compute_dtype: str
    decodes_from_cache: bool = True
    notes: tuple[str, ...] = ()


class FrozenModel(Protocol):
    """A frozen causal language model that reads prompts of either kind."""

    @property
    def card(self) -> ModelCard:
        """What a record says about it."""
        ...

    @property
    def codec(self) -> TextCodec:
        """Its text codec."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What it computes with."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings (..., D) of token ids (...), with the model's own scaling."""
        ...

    @property
    def head(self) -> ReadHead:
        """What turns read states into logits."""
        ...

    @property
    def logit_deviation(self) -> float:
        """Deviation of a position's logits over the vocabulary: a scale for temperatures."""
        ...

    @property
    def narrow(self) -> FrozenModel | None:
        """The same model, its products in bfloat16 and all else as it is: less exact, and fast.

        None where there is none.
        """
        ...

    @property
    def prefix_shape(self) -> PrefixShape:
        """How its KV prefixes are laid out; UserError if stock tools cannot replay one."""
        ...

    def prefix_from_tokens(self, ids: Tensor) -> Tensor:
        """(B, P, W) in float32: what tokens (B, P) at the start of a sequence leave cached."""
        ...

    def prompt_width(self, kind: PromptKind) -> int:
        """W, numbers in one row of a prompt of that kind."""
        ...

    def prepare(
        self, parts: Sequence[Part], *, kind: PromptKind = PromptKind.SOFT
    ) -> PreparedBatch:
        """Lay parts out side by side and compute what no prompt changes."""
        ...

    def step_bytes(self, part: Part, *, kind: PromptKind = PromptKind.SOFT) -> int:
        """About how much memory a forward and a backward pass of a part takes, logits aside."""
        ...
