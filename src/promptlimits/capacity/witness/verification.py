"""What decoding a saved prompt again confirmed, pair by pair: the only source of a floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from promptlimits.base.typing import JsonObject


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model answered to one key behind the prompt.

    Attributes:
        key: The key.
        value: The value it should answer.
        decoded: Text of what it did answer, without a joiner of white space.
        generated_ids: Ids of what it answered, the end marker last if it came.
        exact: Whether the ids are those of an answer that counts, end marker included, and
            stand for its text, as the key's do for the key.
        came: Which answer that was, the value or another accepted one; None where it is not exact.
        fault: Why it is not exact; empty where it is.
    """

    key: str
    value: str
    decoded: str
    generated_ids: tuple[int, ...]
    exact: bool
    came: str | None = None
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelUsed:
    """The model that decoded a witness.

    Attributes:
        name: Short name for people.
        hash: SHA-256 over its weights, configuration, tokenizer and end markers.
        source: Where it came from: the catalog, the hub, or the path as it was given.
    """

    name: str
    hash: str
    source: str

    def to_json(self) -> JsonObject:
        """The form that `verify --json` prints."""
        return {"name": self.name, "hash": self.hash, "from": self.source}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelUsed:
        """Read what `to_json` wrote; a missing field raises KeyError."""
        return cls(name=document["name"], hash=document["hash"], source=document["from"])


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What stock tools confirmed of a witness.

    Attributes:
        answers: One for each recorded pair, in order.
        confirmed_by: Tools and decoding, in one line for reports.
        prompt_sha256: Of the prompt that was decoded.
        model_hash: Of the model that decoded it.
        same_weights: Whether these are the weights the witness was found with.
        created: When, ISO 8601 in UTC.
        seconds: How long it took, model loading included.
        versions: Provenance of the process that decoded.
        model: The model that decoded it; None in a record, which names no path of a machine.
    """

    answers: tuple[Answer, ...]
    confirmed_by: str
    prompt_sha256: str
    model_hash: str
    same_weights: bool
    created: str
    seconds: float
    versions: JsonObject
    model: ModelUsed | None = field(default=None, compare=False)

    @property
    def pairs_exact(self) -> int:
        """Pairs answered exactly; a floor leaves out those answered without a prompt, too."""
        return sum(answer.exact for answer in self.answers)

    @property
    def of(self) -> int:
        """Pairs tried."""
        return len(self.answers)

    def to_json(self) -> JsonObject:
        """The form in witness.json; a pair counts only if it is exact.

        It knows nothing of what the model answers without a prompt: the floor of a bracket,
        which leaves such pairs out, can be smaller than `pairs_exact`.
        """
        document: JsonObject = {"pairs_exact": self.pairs_exact, "of": self.of, **asdict(self)}
        del document["model"]
        document["answers"] = [
            {**asdict(answer), "generated_ids": list(answer.generated_ids), "counted": answer.exact}
            for answer in self.answers
        ]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Verification:
        """Read what `to_json` wrote.

        Args:
            document: The JSON object.

        Returns:
            The same verification. A missing field raises KeyError.
        """
        answers = tuple(
            Answer(
                key=answer["key"],
                value=answer["value"],
                decoded=answer["decoded"],
                generated_ids=tuple(answer["generated_ids"]),
                exact=answer["exact"],
                came=answer["came"],
                fault=answer["fault"],
            )
            for answer in document["answers"]
        )
        names = ("confirmed_by", "prompt_sha256", "model_hash", "same_weights", "created")
        rest = {name: document[name] for name in (*names, "seconds", "versions")}
        return cls(answers=answers, **rest)
