"""What makes an answer exact: the ids are the recorded ones, and they say what was recorded.

Equal ids alone prove little, since the maker of a witness writes down both sides: any model
"answers" whatever it happens to say. So the ids must stand for the texts beside them, and
only an end marker of the model itself ends an answer.

A key stands for its ids if the stock tokenizer reads it so, less a closing marker that it may
add. Where keys are asked as ids it may also be the text of those ids, special tokens shown.

A value stands for its ids if they decode to joiner and value, to the last blank, behind other
text and with special tokens shown. Some tokenizers write no text back as it was (they lower its
case, or have one unknown token for much): then the ids must be those that the stock tokenizer
gives for joiner and value (`Spelling.ids_behind`).

Other accepted answers are checked as the value is, each on its own.

A witness may say that its one value is the beginning of a text. Then no end marker ends it: just
so many tokens are decoded, and all of them must be the recorded ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from promptlimits.capacity.witness.format import WitnessAnswer, WitnessPair
from promptlimits.capacity.witness.verification import Answer
from promptlimits.nets.load.spelling import Spelling

WRONG_KEY: Final = "the tokenizer reads the key as other ids"
NO_END_MARKER: Final = "the recorded value does not end in an end marker of the model"
EARLY_END_MARKER: Final = "the recorded value has an end marker of the model inside"
WRONG_VALUE: Final = "the recorded value is not what its tokens say"
WRONG_ANSWER: Final = "another answer"
NO_END: Final = "the answer goes on where it should end"


def check_answer(
    tokenizer: Any,
    pair: WitnessPair,
    ids: tuple[int, ...],
    *,
    stops: Sequence[int],
    keys_as_text: bool,
    beginning: bool = False,
) -> Answer:
    """Compare what was generated for a key with what was recorded."""
    spelling = Spelling(tokenizer)
    recorded = WitnessAnswer(value=pair.value, value_ids=pair.value_ids)
    answers = (recorded,) if beginning else (recorded, *pair.also)
    fault = _fault_of_key(spelling, pair, keys_as_text=keys_as_text)
    for answer in answers:
        fault = fault or _fault_of_answer(
            spelling, pair.joiner, answer, stops=stops, beginning=beginning
        )
    came = next((answer.value for answer in answers if answer.value_ids == ids), None)
    if not fault and came is None:
        only_end = not beginning and ids[: len(pair.value_ids) - 1] == pair.value_ids[:-1]
        fault = NO_END if only_end else WRONG_ANSWER
    # The end marker is no text, be it special to the tokenizer or not.
    said = spelling.behind(ids[:-1] if ids and ids[-1] in stops else ids, special=False)
    return Answer(
        key=pair.key,
        value=pair.value,
        # A joiner that says something is part of what was answered.
        decoded=said if pair.joiner.strip() else said.removeprefix(pair.joiner),
        generated_ids=ids,
        exact=not fault,
        counted=not fault,
        came=None if fault else came,
        fault=fault,
    )


def _fault_of_key(spelling: Spelling, pair: WitnessPair, *, keys_as_text: bool) -> str:
    """What is wrong with a recorded key; empty if nothing is."""
    if spelling.asked(pair.key) == pair.key_ids:
        return ""
    as_ids = not keys_as_text and spelling.alone(pair.key_ids) == pair.key
    return "" if as_ids else WRONG_KEY


def _fault_of_answer(
    spelling: Spelling,
    joiner: str,
    answer: WitnessAnswer,
    *,
    stops: Sequence[int],
    beginning: bool,
) -> str:
    """What is wrong with a recorded answer, whatever the model says; empty if nothing is."""
    ids = answer.value_ids if beginning else answer.value_ids[:-1]
    if not beginning and answer.value_ids[-1] not in stops:
        return NO_END_MARKER
    if set(ids) & set(stops):
        return EARLY_END_MARKER
    text = joiner + answer.value
    # Special tokens are shown: hidden ones could tell apart answers that read the same.
    return "" if spelling.behind(ids) == text or spelling.ids_behind(text) == ids else WRONG_VALUE
