"""What makes an answer exact: the ids are the recorded ones, and they say what was recorded.

Equal ids alone prove little, since the maker of a witness writes down both sides: any model
"answers" whatever it happens to say. So the ids must stand for the texts beside them, and
only an end marker of the model itself ends an answer.

A key stands for its ids if the stock tokenizer reads it so, less a closing marker that it may
add. Where keys are posed as ids it may also be the text of those ids.

A value stands for its ids if they decode to it, special tokens shown and space around it left
out. Some tokenizers write no text back as it was (they lower its case, or have one unknown
token for much): then the ids must be those that the stock tokenizer gives for the value, read
behind the joiner that stands between key and value.

A witness may say that its one value is the beginning of a text. Then no end marker ends it: just
so many tokens are decoded, and all of them must be the recorded ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from promptlimits.capacity.verification import Answer
from promptlimits.capacity.witness_format import WitnessPair
from promptlimits.errors import UserError

if TYPE_CHECKING:
    from promptlimits.models.huggingface.stock import StockModel

WRONG_KEY: Final = "the tokenizer reads the key as other ids"
NO_END_MARKER: Final = "the recorded value does not end in an end marker of the model"
EARLY_END_MARKER: Final = "the recorded value has an end marker of the model inside"
WRONG_VALUE: Final = "the recorded value is not what its tokens say"
WRONG_ANSWER: Final = "another answer"
NO_END: Final = "the answer goes on where it should end"


def stop_ids(stock: StockModel) -> tuple[int, ...]:
    """The tokens at which decoding stops: the model's own, never one that a witness names.

    Args:
        stock: The model.

    Returns:
        Its end markers; where it names none that its vocabulary has, the tokenizer's end, or
        else separator, as for training.

    Raises:
        UserError: It has none at all.
    """
    vocabulary = int(stock.model.get_input_embeddings().weight.shape[0])
    own = tuple(sorted({token for token in stock.stop_ids if 0 <= token < vocabulary}))
    if own:
        return own
    for token in (stock.tokenizer.eos_token_id, stock.tokenizer.sep_token_id):
        if token is not None and 0 <= token < vocabulary:
            return (int(token),)
    raise UserError(
        "model",
        "have an end marker in its vocabulary",
        got="one without",
        remedy="set eos_token_id in its generation_config.json",
    )


def check_answer(
    tokenizer: Any,
    pair: WitnessPair,
    ids: tuple[int, ...],
    *,
    stops: Sequence[int],
    posed_as_text: bool,
    beginning: bool = False,
) -> Answer:
    """Compare what was generated for a key with what was recorded.

    Args:
        tokenizer: The stock tokenizer.
        pair: The recorded pair.
        ids: What was generated, up to the first end marker.
        stops: End markers of the model.
        posed_as_text: Whether the key is asked as text.
        beginning: Whether the value is the beginning of a text, of which exactly its tokens were
            asked for: then no end marker is due, and none may come.

    Returns:
        The answer and, where it is not exact, the first fault.
    """
    fault = _fault_of_record(
        tokenizer, pair, stops=stops, posed_as_text=posed_as_text, beginning=beginning
    )
    if not fault and ids != pair.value_ids:
        only_end = not beginning and ids[: len(pair.value_ids) - 1] == pair.value_ids[:-1]
        fault = NO_END if only_end else WRONG_ANSWER
    # The end marker is no text, be it special to the tokenizer or not.
    said = ids[:-1] if ids and ids[-1] in stops else ids
    return Answer(
        key=pair.key,
        value=pair.value,
        decoded=_text(tokenizer, said, skip_special_tokens=True),
        generated_ids=ids,
        exact=not fault,
        fault=fault,
    )


def _fault_of_record(
    tokenizer: Any,
    pair: WitnessPair,
    *,
    stops: Sequence[int],
    posed_as_text: bool,
    beginning: bool,
) -> str:
    """What is wrong with a recorded pair, whatever the model answers; empty if nothing is."""
    value = pair.value_ids if beginning else pair.value_ids[:-1]
    if not (_reads_as(tokenizer, pair) or (not posed_as_text and _is_text_of_key(tokenizer, pair))):
        return WRONG_KEY
    if not beginning and pair.value_ids[-1] not in stops:
        return NO_END_MARKER
    if set(value) & set(stops):
        return EARLY_END_MARKER
    return "" if _says(tokenizer, value, pair.value) else WRONG_VALUE


def _reads_as(tokenizer: Any, pair: WitnessPair) -> bool:
    """Whether the stock tokenizer gives the key's ids, less a closing marker it may add."""
    ids = tuple(tokenizer(pair.key).input_ids)
    rest = ids[len(pair.key_ids) :]
    return ids[: len(pair.key_ids)] == pair.key_ids and set(rest) <= set(tokenizer.all_special_ids)


def _is_text_of_key(tokenizer: Any, pair: WitnessPair) -> bool:
    return _text(tokenizer, pair.key_ids, skip_special_tokens=True) == pair.key.strip()


def _says(tokenizer: Any, ids: Sequence[int], value: str) -> bool:
    from promptlimits.models.huggingface.codec import joiner_of

    # Special tokens are shown: hidden ones could tell apart answers that read the same.
    if _text(tokenizer, ids, skip_special_tokens=False) == value.strip():
        return True
    read = tokenizer(joiner_of(tokenizer) + value, add_special_tokens=False).input_ids
    return list(read) == list(ids)


def _text(tokenizer: Any, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
    )
    return text.strip()
