"""A witness on disk: a stock PEFT prompt-tuning adapter, what it claims, and how to replay it.

    adapter_model.safetensors  one tensor, `prompt_embeddings` (P, D), float32
    adapter_config.json        the least that stock PEFT loads
    witness.json               model, task, pairs, hashes, and what a verification confirmed
    replay.py                  replays the pairs with peft and transformers alone

Nothing in it names a path of this machine. The hashes find what was altered by accident or by
hand; they are no signature: what a witness is worth is what decoding it again confirms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from promptlimits._typing import JsonObject, JsonValue
from promptlimits.capacity.atomic_folder import recover, replace_file, write_folder
from promptlimits.capacity.replay_template import REPLAY
from promptlimits.errors import UserError
from promptlimits.models.protocol import EncodedPair, ModelCard
from promptlimits.store.provenance import canonical_json
from promptlimits.store.records import now

WITNESS_SCHEMA = 1
WITNESS_FILE = "witness.json"
ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
REPLAY_FILE = "replay.py"
TENSOR = "prompt_embeddings"
DECODING = "greedy, max_new_tokens = longest answer"

PosedAs: TypeAlias = Literal["text", "ids"]
_Ids: TypeAlias = Annotated[tuple[int, ...], Field(min_length=1)]
_Sha256: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class WitnessPair(_Frozen):
    """One recorded pair; `value_ids` ends with the end marker."""

    key: str
    value: str
    key_ids: _Ids
    value_ids: _Ids


class WitnessModel(_Frozen):
    """The model a witness was found with, as far as a reader needs it."""

    name: str
    reference: str
    weights_hash: str
    dim: int
    compute_dtype: str


class Witness(_Frozen):
    """What witness.json says.

    Attributes:
        model: The model.
        prompt_tokens: P.
        pairs: The recorded pairs, counted or not.
        posed_as: Whether keys are posed as text, which the stock tokenizer reads, or as ids.
        prompt_sha256: Of the prompt's float32 numbers, little-endian, row by row.
        pairs_sha256: Of the canonical JSON of the pairs.
        verification: What the latest verification confirmed; None before the first.
    """

    model: WitnessModel
    prompt_tokens: int
    pairs: Annotated[tuple[WitnessPair, ...], Field(min_length=1)]
    posed_as: PosedAs
    prompt_sha256: _Sha256
    pairs_sha256: _Sha256
    verification: dict[str, Any] | None

    @property
    def counted(self) -> tuple[bool, ...]:
        """For each pair, whether it is claimed: all of them before the first verification."""
        if self.verification is None:
            return (True,) * len(self.pairs)
        return tuple(answer.counted for answer in _Claims.model_validate(self.verification).answers)


class _Claim(_Frozen):
    counted: bool


class _Claims(BaseModel):
    model_config = ConfigDict(extra="ignore")

    answers: tuple[_Claim, ...]


def save_witness(
    directory: Path,
    *,
    prompt: Tensor,
    card: ModelCard,
    task_name: str,
    task_hash: str,
    pairs: Sequence[EncodedPair],
    posed_as: PosedAs = "text",
    extra: Mapping[str, JsonValue] | None = None,
) -> None:
    """Write a witness, in place of an older one if there is one.

    It claims nothing yet: `confirm` decodes it and records what holds.

    Args:
        directory: The folder to make or to replace; not one that holds anything else.
        prompt: (P, D) float32, finite.
        card: The model it was found with.
        task_name: Name of the task.
        task_hash: Hash of the task's ids.
        pairs: The pairs it is said to answer.
        posed_as: "text" if keys are asked as text; "ids" for random tokens, which no text may
            give.
        extra: Further facts for witness.json, such as the seed.

    Raises:
        UserError: The prompt is not finite or of another shape, there are no pairs, or the
            folder holds something else.
        RunFailed: It could not be written; an older witness is unchanged.
    """
    _require_prompt(prompt, card)
    if not pairs:
        raise UserError("pairs", "not be empty", got="none", remedy="save what the prompt answers")
    _require_replaceable(directory)
    numbers = prompt.detach().to("cpu").contiguous()
    recorded: list[JsonValue] = [_pair_json(pair) for pair in pairs]
    reference = _portable_reference(card)
    document: JsonObject = {
        "schema": WITNESS_SCHEMA,
        "model": {**asdict(card), "reference": reference, "path": reference},
        "task": {"name": Path(task_name).name, "hash": task_hash},
        "prompt_tokens": numbers.shape[0],
        "pairs": recorded,
        "posed_as": posed_as,
        "decoding": DECODING,
        "prompt_sha256": prompt_sha256(numbers),
        "pairs_sha256": _pairs_sha256(recorded),
        "created": now(),
        "verification": None,
        "extra": dict(extra or {}),
    }
    files = {
        ADAPTER_FILE: save({TENSOR: numbers}, metadata={"format": "pt"}),
        CONFIG_FILE: _json_bytes(_adapter_config(numbers.shape[0], card.dim, reference)),
        WITNESS_FILE: _json_bytes(document),
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
        UserError: There is none, it is not whole, it is newer than this program, or its pairs
            were altered.
    """
    document = _read_object(directory, WITNESS_FILE)
    schema = document.get("schema")
    if isinstance(schema, int) and schema > WITNESS_SCHEMA:
        raise UserError(
            str(directory / WITNESS_FILE),
            f"have schema {WITNESS_SCHEMA} or older",
            got=f"schema {schema}",
            remedy="upgrade promptlimits",
        )
    try:
        witness = Witness.model_validate_json(json.dumps(document))
        claims = len(witness.counted)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _broken(directory, WITNESS_FILE, f"{where}: {first['msg']}") from error
    if claims != len(witness.pairs):
        detail = f"{claims} answers were verified of {len(witness.pairs)} pairs"
        raise _broken(directory, WITNESS_FILE, detail)
    if _pairs_sha256(document["pairs"]) != witness.pairs_sha256:
        raise _altered(directory, WITNESS_FILE, "pairs")
    return witness


def read_prompt(directory: Path, witness: Witness) -> Tensor:
    """Read the prompt and check that it, and its configuration, are what was saved.

    Args:
        directory: The witness folder.
        witness: What its witness.json says.

    Returns:
        (P, D) float32, finite.

    Raises:
        UserError: A file is missing or broken, or the prompt was altered.
    """
    try:
        tensors = load_file(directory / ADAPTER_FILE)
    except (SafetensorError, OSError) as error:
        raise _broken(directory, ADAPTER_FILE, str(error)) from error
    prompt = tensors.get(TENSOR)
    expected = (witness.prompt_tokens, witness.model.dim)
    if prompt is None or tuple(prompt.shape) != expected or prompt.dtype != torch.float32:
        found = {name: (*tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        raise UserError(
            str(directory / ADAPTER_FILE),
            f"hold {TENSOR} of shape {expected} in float32",
            got=found,
            remedy="make the witness again with promptlimits bracket",
        )
    if not bool(torch.isfinite(prompt).all()) or prompt_sha256(prompt) != witness.prompt_sha256:
        raise _altered(directory, ADAPTER_FILE, "prompt")
    _require_config(directory, witness)
    return prompt


def write_verification(directory: Path, verification: JsonObject) -> None:
    """Record in witness.json what a verification confirmed, whole or not at all.

    Args:
        directory: The witness folder.
        verification: The JSON form of a verification.

    Raises:
        UserError: The witness is gone, or was replaced by another prompt in the meantime.
    """
    document = _read_object(directory, WITNESS_FILE)
    if document.get("prompt_sha256") != verification["prompt_sha256"]:
        raise _altered(directory, WITNESS_FILE, "prompt")
    document["verification"] = verification
    replace_file(directory / WITNESS_FILE, _json_bytes(document))


def prompt_sha256(prompt: Tensor) -> str:
    """SHA-256 of a prompt's float32 numbers, little-endian, row by row."""
    return hashlib.sha256(prompt.numpy().astype("<f4").tobytes()).hexdigest()


def _adapter_config(tokens: int, dim: int, reference: str) -> JsonObject:
    return {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": tokens,
        "num_transformer_submodules": 1,
        "token_dim": dim,
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
        "base_model_name_or_path": reference,
    }


def _require_config(directory: Path, witness: Witness) -> None:
    """Refuse a configuration with which PEFT would do anything else than load the tensor."""
    config = _read_object(directory, CONFIG_FILE)
    expected = _adapter_config(witness.prompt_tokens, witness.model.dim, "")
    del expected["base_model_name_or_path"]
    found = {name: config.get(name) for name in expected}
    if found != expected:
        raise UserError(
            str(directory / CONFIG_FILE),
            f"say {canonical_json(expected)}",
            got=canonical_json(found),
            remedy="make the witness again with promptlimits bracket",
        )


def _require_prompt(prompt: Tensor, card: ModelCard) -> None:
    shape = tuple(prompt.shape)
    if len(shape) != 2 or shape[0] < 1 or shape[1] != card.dim or prompt.dtype != torch.float32:
        raise UserError(
            "prompt",
            f"have shape (P, {card.dim}) with P of 1 or more, in float32",
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


def _require_replaceable(directory: Path) -> None:
    """Only an older witness may be replaced: never a folder with somebody's other files."""
    recover(directory)
    if not directory.exists():
        return
    if directory.is_dir() and (
        (directory / WITNESS_FILE).is_file() or not any(directory.iterdir())
    ):
        return
    raise UserError(
        str(directory),
        "be a new folder or an older witness",
        got="one that holds something else",
        remedy="choose another output folder",
    )


def _portable_reference(card: ModelCard) -> str:
    """A catalog name or hub id; for a local model its short name, never where it lies."""
    local = Path(card.reference).expanduser()
    if local.is_absolute() or local.exists() or local.suffix == ".gguf":
        return card.name
    return card.reference


def _pair_json(pair: EncodedPair) -> JsonObject:
    return {
        "key": pair.key,
        "value": pair.value,
        "key_ids": list(pair.key_ids),
        "value_ids": list(pair.value_ids),
    }


def _pairs_sha256(pairs: JsonValue) -> str:
    return hashlib.sha256(canonical_json(pairs, name="pairs").encode("ascii")).hexdigest()


def _json_bytes(document: JsonObject) -> bytes:
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # A lone surrogate, which no UTF-8 can hold, becomes its JSON escape.
    return (text + "\n").encode("utf-8", errors="backslashreplace")


def _read_object(directory: Path, name: str) -> dict[str, Any]:
    """A JSON object from a witness folder."""
    recover(directory)
    if not directory.is_dir():
        raise UserError(
            str(directory),
            "be a witness folder",
            got="nothing there" if not directory.exists() else "a file",
            remedy="give the folder that holds witness.json",
        )
    path = directory / name
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            str(directory),
            f"hold {name}",
            got="a folder without it",
            remedy="give the folder that holds witness.json",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(directory, name, str(error)) from error
    if not isinstance(document, dict):
        raise _broken(directory, name, f"{type(document).__name__} where an object should be")
    return document


def _broken(directory: Path, name: str, detail: str) -> UserError:
    return UserError(
        str(directory / name),
        "be as promptlimits wrote it",
        got=f"one that cannot be read ({detail})",
        remedy="make the witness again with promptlimits bracket",
    )


def _altered(directory: Path, name: str, what: str) -> UserError:
    return UserError(
        str(directory / name),
        f"hold the {what} that the hash in {WITNESS_FILE} was taken of",
        got=f"altered {what}",
        remedy="restore the folder from a copy, or make the witness again",
    )
