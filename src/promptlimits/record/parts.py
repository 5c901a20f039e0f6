"""What a record is made of: the model, the task, baselines, floors, ceilings and searches."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from promptlimits.base.strict import Amount, Count, Many, Positive, Strict


class Model(Strict):
    """The frozen model, as its card says."""

    name: str
    reference: str
    path: str
    model_hash: str
    parameters: Count
    dim: Count
    layers: Count
    vocabulary: Count
    context_length: Count
    compute_dtype: str
    decodes_from_cache: bool
    notes: Many[str]


class Task(Strict):
    """The list of pairs that the prompt was asked to hold."""

    name: str
    pairs: Count
    text_tokens: Positive | None  # tokens of the one text that is to be written; None for a list
    hash: str
    # As digits: answer sets of long random answers pass Python's limit on the text of whole
    # numbers.
    answer_set_size: Annotated[str, Field(pattern=r"^[0-9]+$")]
    answer_set: str
    answers_random: bool  # whether the answers were drawn at random from that set
    order: str
    source: str
    notes: Many[str]


class Seconds(Strict):
    """Where the seconds of a command went, over all its calls."""

    training: Amount = 0.0  # of searches and planted controls
    baselines: Amount = 0.0  # asking without a trained prompt
    ordering: Amount = 0.0  # the order of the list
    verification: Amount = 0.0  # saving the best prompts and waiting for stock tools
    evaluation: Amount = 0.0  # running prompts over the whole list, to choose the best
    rest: Amount = 0.0

    @property
    def shares(self) -> dict[str, float]:
        """The share of each stage, largest first, the rest last; all 0 where no time was taken."""
        by_stage = self.model_dump()
        rest, total = by_stage.pop("rest"), sum(by_stage.values()) + self.rest
        largest_first = sorted(by_stage.items(), key=lambda one: -one[1])
        return {name: part / (total or 1.0) for name, part in [*largest_first, ("rest", rest)]}


class Baseline(Strict):
    """Pairs answered exactly without a trained prompt, in any of the answers that count."""

    name: str  # what stood in front of the key instead, such as "in context"
    of: Count  # pairs of the list
    # How many of them were asked, the first ones: fewer than `of` where the budget was used up, and
    # then nothing was measured of the list.
    asked: Count
    exact: Many[Count]  # indices of those answered exactly
    shots: Count  # pairs written out in front of the key
    context_tokens: Count  # tokens in front of the key
    note: str  # what else a reader must know
    # Of a text, how many of its tokens come from the first one on; None for a list.
    tokens: Count | None
    status: Literal["measured", "not measured"]
    pairs: Count | None  # pairs answered exactly; None where it was not measured

    @classmethod
    def made(
        cls,
        name: str,
        *,
        of: int,
        asked: int,
        exact: tuple[int, ...],
        shots: int = 0,
        context_tokens: int = 0,
        note: str = "",
        tokens: int | None = None,
    ) -> Self:
        """The baseline of what was asked: it is measured where that is every pair."""
        measured = asked == of
        return cls(
            name=name,
            of=of,
            asked=asked,
            exact=exact,
            shots=shots,
            context_tokens=context_tokens,
            note=note,
            tokens=tokens,
            status="measured" if measured else "not measured",
            pairs=len(exact) if measured else None,
        )

    @property
    def measured(self) -> bool:
        """Whether every pair was asked."""
        return self.status == "measured"

    @property
    def count(self) -> int:
        """Pairs answered exactly, or tokens of a text."""
        return len(self.exact) if self.tokens is None else self.tokens


class Verdict(StrEnum):
    """What became of one pair when the saved prompt was decoded."""

    HELD = "held"
    NOT_COUNTED = "not counted"
    WRONG = "wrong"


class Answer(Strict):
    """One pair and what the model, behind the saved prompt, decoded for its key."""

    key: str
    value: str
    decoded: str
    exact: bool
    unprompted: bool
    counted: bool
    fault: str

    @property
    def verdict(self) -> Verdict:
        """Held, exact but not counted, or wrong."""
        if not self.exact:
            return Verdict.WRONG
        return Verdict.HELD if self.counted else Verdict.NOT_COUNTED


class ReplayLoss(Strict):
    """A floor below what its prompt held in training."""

    held_in_training: Count  # pairs, or tokens of a text from the first on, that training held
    confirmed: Count  # how many of them stock tools confirmed
    unit: Annotated[str, Field(pattern=r"^(pair|token)$")]  # which of the two is counted

    def __str__(self) -> str:
        """In one sentence."""
        units = f"{self.unit}s" if self.held_in_training != 1 else self.unit
        return (
            f"training held {self.held_in_training} {units}, stock tools confirmed "
            f"{self.confirmed or 'none'} of them"
        )


class Floor(Strict):
    """Pairs that a prompt on disk holds; bits are those that so many random answers would take."""

    status: Literal["found", "not measured"]
    pairs: Count
    tokens: Count | None  # tokens of a text that are held, from the first on; None for a list
    bits: Amount
    bits_per_prompt_token: Amount
    bits_per_stored_bit: Amount
    witness: str | None  # name of the prompt's folder beside the record; None if nothing is held
    prompt_sha256: str | None  # of the prompt that was decoded; None where none was
    confirmed_by: str
    also_answered_unprompted: Count  # pairs that came out exact, of which the model needs no prompt
    lost_in_replay: ReplayLoss | None  # what training held and stock tools did not confirm
    answers: Many[Answer]  # all that was put to the test, in the order of the search

    @property
    def held(self) -> int:
        """What is held: tokens of a text, pairs of a list."""
        return self.pairs if self.tokens is None else self.tokens


class Ceiling(Strict):
    """What a theorem says of lists of random answers, but for a share of those lists.

    Lists of more than `pairs` answers cannot be answered in full by any prompt of this length;
    if `pool` is larger than `pairs`, lists of `pool` answers cannot have more than `pairs` of
    them right. It says nothing about the best of a longer list, and nothing about facts. None
    where the theorem gives no ceiling: there is a single answer to give.
    """

    status: Literal["proved"]
    pairs: Count | None
    every_list_pairs: Count | None
    bits: Amount
    prompt_bits: Amount
    source: str
    statement: str
    assumptions: Many[str]
    pool: Count
    certificate: str
    certificate_sha256: str
    share_log2: Annotated[float, Field(lt=0, allow_inf_nan=False)]


class Sized(Strict):
    """What was tried at a size: a number of pairs, or of tokens of a text."""

    pairs: Annotated[Count | None, Field(exclude_if=lambda size: size is None)] = None
    tokens: Annotated[Count | None, Field(exclude_if=lambda size: size is None)] = None

    @classmethod
    def of(cls, units: str, size: int, **fields: Any) -> Self:
        """What was tried at a size in "pairs" or "tokens"."""
        return cls.model_validate({units: size, **fields})

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if (self.pairs is None) == (self.tokens is None):
            raise ValueError("give pairs or tokens")
        return self

    @property
    def size(self) -> int:
        """That number."""
        return self.pairs if self.pairs is not None else self.tokens or 0


class Attempt(Sized):
    """One size that the search tried, and how much of it training held."""

    held: Count
    outcome: str
    remedy: str
    steps: Count
    seconds: Amount
    seed: int


class Control(Sized):
    """What training recovered of planted answers, which a known prompt gives, every one."""

    status: Literal["measured"] = "measured"
    # How many of them the best trained prompt answers exactly; of a text, in a row from the first
    # one on.
    recovered: Count
    outcome: str  # how the training ended
    steps: Count  # its steps, over all resumptions
    seconds: Amount  # time those took
    seed: int  # seed of its start, and of the plant
    distinct_answers: Count = 0  # different answers among the planted pairs
    list_distinct_answers: Count = 0  # different answers among as many pairs of the list
    # Entropy of the planted answers over the keys, of at most log2(pairs): that of the list at
    # hand, an estimate of what any keys would give. Of a text, this and both numbers of distinct
    # answers are about its single tokens.
    answer_entropy_bits: Amount = 0.0
    answered_unprompted: Count = 0  # planted pairs that the model also answers without a prompt
    token_norm: Amount = 0.0  # mean L2 norm of the planted prompt's tokens
    finished: bool  # whether the training ended for good
    conclusion: str  # what the control allows one to say, and no more


class NoControl(Strict):
    """Why no planted control was run where the list is not held."""

    status: Literal["not run"] = "not run"
    reason: str
    conclusion: str


AnyControl = Annotated[Control | NoControl, Field(discriminator="status")]
Kind = Annotated[str, Field(pattern=r"^(soft|prefix)$")]


class State(StrEnum):
    """What became of a prompt of some kind and length."""

    FOUND = "found"
    NONE_FOUND = "none_found"
    NOT_SEARCHED = "not_searched"


class Bracket(Strict):
    """Floor and ceiling of one kind of prompt at one length."""

    state: Annotated[State, Field(strict=False)]
    kind: Kind
    prompt_tokens: Positive
    stored_bits: Positive  # bits that the numbers of such a prompt take on disk
    floor: Floor
    ceiling: Ceiling
    control: AnyControl | None  # none where the search held the whole list, or none was asked for
    search: Many[Attempt]  # every attempt behind the floor
    complete: bool  # whether a larger budget would change nothing
    stopped_because: str
    seconds: Amount  # time spent at this length, over all resumptions

    @property
    def searched(self) -> bool:
        """Whether prompts of this length were searched for at all; the floor is 0 if not."""
        return self.state is not State.NOT_SEARCHED
