"""What decoding a saved prompt again confirmed, pair by pair: the only source of a floor."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeAlias

from pydantic import Field, model_validator

from promptlimits.base.strict import Strict

Sha256: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Answer(Strict):
    """What the model answered to one key behind the prompt."""

    key: str
    value: str  # the value it should answer
    decoded: str  # text of what it did answer, without a joiner of white space
    generated_ids: tuple[int, ...]  # ids of what it answered, the end marker last if it came
    # Whether the ids are those of an answer that counts, end marker included, and stand for its
    # text, as the key's do for the key.
    exact: bool
    # Which answer that was, the value or another accepted one; None where it is not exact.
    came: str | None
    fault: str  # why it is not exact; empty where it is
    counted: bool  # whether the pair is claimed: it is exact


class ModelUsed(Strict):
    """The model that decoded a witness."""

    name: str  # short name for people
    hash: str  # SHA-256 over its weights, configuration, tokenizer and end markers
    # Where it came from: the catalog, the hub, or the path as it was given.
    source: Annotated[str, Field(alias="from")]


class Verification(Strict):
    """What stock tools confirmed of a witness.

    It knows nothing of what the model answers without a prompt: the floor of a bracket, which
    leaves such pairs out, can be smaller than `pairs_exact`.

    Attributes:
        pairs_exact: Pairs answered exactly.
        of: Pairs tried.
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

    pairs_exact: int
    of: int
    answers: tuple[Answer, ...]
    confirmed_by: str
    prompt_sha256: Sha256
    model_hash: str
    same_weights: bool
    created: str
    seconds: float
    versions: dict[str, Any]
    model: Annotated[ModelUsed | None, Field(exclude=True)] = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        exact = [answer.exact for answer in self.answers]
        counted = [answer.counted for answer in self.answers]
        if counted != exact or (self.pairs_exact, self.of) != (sum(exact), len(exact)):
            raise ValueError("the pairs counted are not those that were exact")
        return self
