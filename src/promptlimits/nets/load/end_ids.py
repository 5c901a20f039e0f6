"""The tokens at which a model's own settings have `generate` stop."""

from __future__ import annotations

from transformers import PreTrainedModel

from promptlimits.base.errors import UserError


def named_end_ids(model: PreTrainedModel, *, vocabulary: int, name: str) -> tuple[int, ...]:
    """End markers of a model's generation settings that its vocabulary has.

    Some models name one outside of it (50256 of 33, say).
    """
    named = model.generation_config.eos_token_id if model.generation_config else None
    several = named if isinstance(named, list) else [named]
    wrong = [one for one in several if one is not None and type(one) is not int]
    if wrong:
        raise UserError(
            f"eos_token_id in generation_config.json or config.json of {name}",
            "be a whole number or a list of them",
            got=repr(named),
            remedy="write the number that its tokenizer gives the end marker",
        )
    return tuple(one for one in several if one is not None and 0 <= one < vocabulary)
