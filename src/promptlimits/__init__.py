"""How much a prompt can hold: what was found, what is proved, and what lies between.

The whole public API is what this module exports; everything else may change without notice.
Names are looked up on first use, so that `import promptlimits` never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptlimits.bound import Assumption, Certificate, LogBound, Source
    from promptlimits.errors import PromptLimitsError, PromptLimitsWarning, RunFailed, UserError
    from promptlimits.models.protocol import EncodedPair, FrozenModel, ModelCard, TextCodec
    from promptlimits.store import RunRecord, Store
    from promptlimits.tasks.encoded import EncodedTask, encode
    from promptlimits.tasks.pairs import Pair, PairTask, read_pairs
    from promptlimits.tasks.resolve import load_task
    from promptlimits.theory.number_formats import NumberFormat, number_format
    from promptlimits.theory.token_capacity import (
        CountingCeiling,
        counting_ceiling,
        shortest_prompt,
    )
    from promptlimits.tuning.outcome import Outcome

__version__ = "0.1.0"

# Public name -> the module that defines it.
_DEFINED_IN = {
    "Assumption": "promptlimits.bound",
    "Certificate": "promptlimits.bound",
    "CountingCeiling": "promptlimits.theory.token_capacity",
    "EncodedPair": "promptlimits.models.protocol",
    "EncodedTask": "promptlimits.tasks.encoded",
    "FrozenModel": "promptlimits.models.protocol",
    "LogBound": "promptlimits.bound",
    "ModelCard": "promptlimits.models.protocol",
    "NumberFormat": "promptlimits.theory.number_formats",
    "Outcome": "promptlimits.tuning.outcome",
    "Pair": "promptlimits.tasks.pairs",
    "PairTask": "promptlimits.tasks.pairs",
    "PromptLimitsError": "promptlimits.errors",
    "PromptLimitsWarning": "promptlimits.errors",
    "RunFailed": "promptlimits.errors",
    "RunRecord": "promptlimits.store",
    "Source": "promptlimits.bound",
    "Store": "promptlimits.store",
    "TextCodec": "promptlimits.models.protocol",
    "UserError": "promptlimits.errors",
    "counting_ceiling": "promptlimits.theory.token_capacity",
    "encode": "promptlimits.tasks.encoded",
    "load_task": "promptlimits.tasks.resolve",
    "number_format": "promptlimits.theory.number_formats",
    "read_pairs": "promptlimits.tasks.pairs",
    "shortest_prompt": "promptlimits.theory.token_capacity",
}

__all__ = [
    "Assumption",
    "Certificate",
    "CountingCeiling",
    "EncodedPair",
    "EncodedTask",
    "FrozenModel",
    "LogBound",
    "ModelCard",
    "NumberFormat",
    "Outcome",
    "Pair",
    "PairTask",
    "PromptLimitsError",
    "PromptLimitsWarning",
    "RunFailed",
    "RunRecord",
    "Source",
    "Store",
    "TextCodec",
    "UserError",
    "__version__",
    "counting_ceiling",
    "encode",
    "load_task",
    "number_format",
    "read_pairs",
    "shortest_prompt",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported yet or not."""
    return sorted(__all__)
