"""A witness on disk: a stock PEFT adapter, what it claims, and how to replay it.

The adapter is of prompt tuning (a soft prompt) or of prefix tuning (a KV prefix).

    adapter_model.safetensors  one tensor, `prompt_embeddings` (P, W), float32
    adapter_config.json        the least that stock PEFT loads
    witness.json               kind, model, task, pairs, hashes, and what a verification confirmed
    replay.py                  replays the pairs with peft and transformers alone

Nothing in it names a path of this machine. The hashes find what was altered by accident or by
hand; they are no signature: what a witness is worth is what decoding it again confirms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from promptlimits.base.errors import UserError
from promptlimits.base.files import JsonObject, JsonValue, recover, replace_file, write_folder
from promptlimits.base.strict import Strict
from promptlimits.capacity.store.provenance import canonical_json
from promptlimits.capacity.store.records import now
from promptlimits.capacity.witness.files import (
    ADAPTER_FILE,
    CONFIG_FILE,
    REPLAY_FILE,
    WITNESS_FILE,
    WITNESS_FILES,
    adapter_bytes,
    adapter_config,
    altered,
    broken,
    json_bytes,
    prompt_sha256,
    read_adapter,
    read_object,
    require_replaceable,
)
from promptlimits.capacity.witness.replay_template import REPLAY
from promptlimits.capacity.witness.verification import Sha256, Verification
from promptlimits.nets.prefix_shape import PrefixShape
from promptlimits.nets.protocol import EncodedPair, ModelCard

WITNESS_SCHEMA: Final = 1
DECODING: Final = "greedy, max_new_tokens = longest answer"

KeysAs: TypeAlias = Literal["text", "ids"]
_Ids: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
_Count: TypeAlias = Annotated[int, Field(ge=1)]


class WitnessAnswer(Strict):
    """An answer that counts; `value_ids` are of joiner and value, the end marker last."""

    value: str
    value_ids: _Ids


class WitnessPair(Strict):
    """One recorded pair; `value_ids` should end with the end marker, but for a beginning's."""

    key: str  # the key as it is asked
    joiner: str  # what stands between key and value
    value: str
    key_ids: _Ids  # token ids of the key
    value_ids: _Ids  # token ids of joiner and value
    also: tuple[WitnessAnswer, ...]  # other answers that count

    @property
    def longest_answer(self) -> int:
        """Most tokens of an answer that counts."""
        return max(len(self.value_ids), *(len(answer.value_ids) for answer in self.also), 0)


class WitnessTask(Strict):
    """The task that the pairs are of."""

    name: str
    hash: str


class Witness(Strict):
    """What witness.json says.

    Attributes:
        kind: "soft" or "prefix".
        prefix_shape: How a prefix is laid out; None for a soft prompt.
        beginning: Whether the one value is the beginning of a text, without an end marker.
        model: The model, without paths of a machine.
        task: The task.
        prompt_tokens: P.
        pairs: The recorded pairs, counted or not.
        keys_as: Whether keys are asked as text, which the stock tokenizer reads, or as ids.
        decoding: How answers are decoded.
        prompt_sha256: Of the prompt's float32 numbers, little-endian, row by row.
        adapter_sha256: Of the whole adapter file.
        pairs_sha256: Of the canonical JSON of the pairs.
        created: When, ISO 8601 in UTC.
        verification: What the latest verification confirmed; None before the first.
        extra: Further facts, such as the seed.
    """

    witness_schema: Annotated[Literal[1], Field(alias="schema")]
    kind: Literal["soft", "prefix"]
    prefix_shape: PrefixShape | None = None
    beginning: bool = False
    model: ModelCard
    task: WitnessTask
    prompt_tokens: _Count
    pairs: Annotated[tuple[WitnessPair, ...], Field(min_length=1)]
    keys_as: KeysAs
    decoding: str
    prompt_sha256: Sha256
    adapter_sha256: Sha256
    pairs_sha256: Sha256
    created: str
    verification: Verification | None
    extra: dict[str, Any]

    @property
    def width(self) -> int:
        """W, numbers in a row of the prompt."""
        return self.model.dim if self.prefix_shape is None else self.prefix_shape.width

    @property
    def counted(self) -> tuple[bool, ...]:
        """For each pair, whether it is claimed: all of them before the first verification."""
        if self.verification is None:
            return (True,) * len(self.pairs)
        return tuple(answer.counted for answer in self.verification.answers)

    @property
    def config(self) -> JsonObject:
        """What its adapter_config.json says."""
        return adapter_config(
            prompt_tokens=self.prompt_tokens,
            dim=self.model.dim,
            reference=self.model.reference,
            prefix_shape=self.prefix_shape,
        )

    def contradiction(self) -> str:
        """How it contradicts itself; empty if it does not."""
        if (self.kind == "prefix") is (self.prefix_shape is None):
            return f"a prompt of the kind {self.kind} with the layout of another"
        if self.verification is None:
            return ""
        answers = self.verification.answers
        if len(answers) != len(self.pairs):
            return f"{len(answers)} answers were verified of {len(self.pairs)} pairs"
        for answer, pair in zip(answers, self.pairs, strict=True):
            if (answer.key, answer.value) != (pair.key, pair.value):
                return "the answers verified are to other pairs"
            known = {pair.value, *(one.value for one in pair.also)} if answer.exact else {None}
            if answer.came not in known:
                return "an answer that came is not one that counts"
        if self.verification.prompt_sha256 != self.prompt_sha256:
            return "another prompt was verified"
        return ""


def save_witness(
    directory: Path,
    *,
    prompt: Tensor,
    card: ModelCard,
    task_name: str,
    task_hash: str,
    pairs: Sequence[EncodedPair],
    prefix_shape: PrefixShape | None = None,
    keys_as: KeysAs = "text",
    beginning: bool = False,
    extra: Mapping[str, JsonValue] | None = None,
) -> None:
    """Write a witness, in place of an older one if there is one.

    It claims nothing yet: `confirm` decodes it and records what holds.

    Args:
        directory: The folder to make or to replace; not one that holds anything else.
        prompt: (P, W) float32, finite.
        card: The model it was found with.
        task_name: Name of the task.
        task_hash: Hash of the task's ids.
        pairs: The pairs it is said to answer.
        prefix_shape: How the prompt is laid out if it is a KV prefix; None for a soft prompt.
        keys_as: "text" if keys are asked as text; "ids" for random tokens, which no text may give.
        beginning: Whether the one value is the beginning of a text: no end marker ends it, and
            what the model would write behind it is not asked.
        extra: Further facts for witness.json, such as the seed.

    Raises:
        UserError: The prompt is not finite or of another shape, there are no pairs or two with
            one key, a beginning is not alone, or the folder holds something else.
        RunFailed: It could not be written; an older witness is unchanged.
    """
    width = card.dim if prefix_shape is None else prefix_shape.width
    _require_prompt(prompt, width)
    if not pairs:
        raise UserError("pairs", "not be empty", got="none", remedy="save what the prompt answers")
    _require_distinct("pairs", [(pair.key, pair.key_ids) for pair in pairs])
    _require_alone("pairs", pairs, beginning=beginning)
    require_replaceable(directory)
    numbers = prompt.detach().to("cpu").contiguous()
    recorded: list[JsonValue] = [pair.to_json() for pair in pairs]
    reference = _portable_reference(card)
    adapter = adapter_bytes(numbers)
    witness = Witness.from_json(
        {
            "schema": WITNESS_SCHEMA,
            "kind": "soft" if prefix_shape is None else "prefix",
            "prefix_shape": None if prefix_shape is None else asdict(prefix_shape),
            "beginning": beginning,
            "model": {**asdict(card), "reference": reference, "path": reference},
            "task": {"name": Path(task_name).name, "hash": task_hash},
            "prompt_tokens": numbers.shape[0],
            "pairs": recorded,
            "keys_as": keys_as,
            "decoding": DECODING,
            "prompt_sha256": prompt_sha256(numbers),
            "adapter_sha256": hashlib.sha256(adapter).hexdigest(),
            "pairs_sha256": _pairs_sha256(recorded),
            "created": now(),
            "verification": None,
            "extra": dict(extra or {}),
        }
    )
    files = {
        ADAPTER_FILE: adapter,
        CONFIG_FILE: json_bytes(witness.config),
        WITNESS_FILE: json_bytes(witness.to_json()),
        REPLAY_FILE: REPLAY.encode("utf-8"),
    }
    write_folder(directory, files)


def read_witness(directory: Path) -> Witness:
    """Read witness.json and check that its pairs are the recorded ones.

    Args:
        directory: A witness folder.

    Returns:
        What it says.

    Raises:
        UserError: There is none, it is not whole, another version wrote it, its pairs were
            altered, two of them have one key, or what it says was verified is something else.
    """
    document = read_object(directory, WITNESS_FILE)
    schema = document.get("schema")
    if isinstance(schema, int) and schema != WITNESS_SCHEMA:
        raise UserError(
            str(directory / WITNESS_FILE),
            f"have schema {WITNESS_SCHEMA}",
            got=f"schema {schema}",
            remedy=(
                "upgrade promptlimits"
                if schema > WITNESS_SCHEMA
                else "run the command again that made it"
            ),
        )
    try:
        witness = Witness.from_json(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise broken(directory, WITNESS_FILE, f"{where}: {first['msg']}".lstrip(": ")) from error
    if _pairs_sha256(document["pairs"]) != witness.pairs_sha256:
        raise altered(directory, WITNESS_FILE, "pairs")
    _require_distinct(
        str(directory / WITNESS_FILE), [(pair.key, pair.key_ids) for pair in witness.pairs]
    )
    _require_alone(str(directory / WITNESS_FILE), witness.pairs, beginning=witness.beginning)
    if contradiction := witness.contradiction():
        raise broken(directory, WITNESS_FILE, contradiction)
    return witness


def read_prompt(directory: Path, witness: Witness) -> Tensor:
    """Read the prompt (P, W) and check that it, and its configuration, are what was saved."""
    return read_adapter(
        directory,
        shape=(witness.prompt_tokens, witness.width),
        config=witness.config,
        prompt_hash=witness.prompt_sha256,
        adapter_hash=witness.adapter_sha256,
    )


def write_verification(directory: Path, verification: Verification) -> None:
    """Record in witness.json what a verification confirmed, whole or not at all."""
    recover(directory, WITNESS_FILES)
    document = read_object(directory, WITNESS_FILE)
    if document.get("prompt_sha256") != verification.prompt_sha256:
        raise altered(directory, WITNESS_FILE, "prompt")
    document["verification"] = verification.to_json()
    replace_file(directory / WITNESS_FILE, json_bytes(document))


def _require_distinct(name: str, keys: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Refuse two pairs with one key: a pair written down 500 times is still one pair."""
    seen: set[tuple[int, ...]] = set()
    for key, ids in keys:
        if tuple(ids) in seen:
            raise UserError(
                name,
                "have keys that all differ as tokens",
                got=f"{key!r} twice",
                remedy="leave the repetitions out",
            )
        seen.add(tuple(ids))


def _require_alone(name: str, pairs: Sequence[object], *, beginning: bool) -> None:
    """Refuse a list whose answers are said to be beginnings: answers of a list end."""
    if beginning and len(pairs) != 1:
        raise UserError(
            name,
            "be one pair where its value is the beginning of a text",
            got=f"{len(pairs)} pairs",
            remedy="record the values of a list with their end markers",
        )


def _require_prompt(prompt: Tensor, width: int) -> None:
    shape = tuple(prompt.shape)
    if len(shape) != 2 or shape[0] < 1 or shape[1] != width or prompt.dtype != torch.float32:
        raise UserError(
            "prompt",
            f"have shape (P, {width}) with P of 1 or more, in float32",
            got=f"{shape} in {prompt.dtype}",
            remedy="pass the prompt of one problem",
        )
    if not bool(torch.isfinite(prompt).all()):
        raise UserError(
            "prompt",
            "have finite numbers only",
            got=f"{int((~torch.isfinite(prompt)).sum())} that are not",
            remedy="keep the last prompt before the run diverged, or lower the learning rate",
        )


def _portable_reference(card: ModelCard) -> str:
    """A catalog name or hub id; for a local model its short name, never where it lies."""
    local = Path(card.reference).expanduser()
    if local.is_absolute() or local.exists() or local.suffix == ".gguf":
        return card.name
    return card.reference


def _pairs_sha256(pairs: JsonValue) -> str:
    return hashlib.sha256(canonical_json(pairs, name="pairs").encode("ascii")).hexdigest()
