"""How much a prompt can hold: what was found, what is proved, and what lies between.

The whole public API is what this module exports; everything else may change without notice.
Names are looked up on first use, so that `import promptlimits` never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptlimits.bound import Assumption, Certificate, LogBound, Source
    from promptlimits.capacity.fresh_process import verify_in_fresh_process
    from promptlimits.capacity.measure import measure
    from promptlimits.capacity.ordering import Order
    from promptlimits.capacity.request import Request
    from promptlimits.capacity.search import SearchConfig
    from promptlimits.capacity.verification import Verification
    from promptlimits.capacity.witness_format import Witness, read_witness, save_witness
    from promptlimits.checking.counting import check_counting
    from promptlimits.errors import PromptLimitsError, PromptLimitsWarning, RunFailed, UserError
    from promptlimits.models.huggingface.causal import HuggingFaceCausalLM
    from promptlimits.models.huggingface.load import load_parts
    from promptlimits.models.protocol import (
        EncodedPair,
        FrozenModel,
        ModelCard,
        PackedPairs,
        TextCodec,
        pack,
    )
    from promptlimits.report.html import write_report
    from promptlimits.store import RunRecord, Store
    from promptlimits.tasks.builtin import capitals
    from promptlimits.tasks.encoded import EncodedTask, encode
    from promptlimits.tasks.pairs import Pair, PairTask, read_pairs
    from promptlimits.tasks.random_tokens import random_pairs
    from promptlimits.tasks.resolve import load_task
    from promptlimits.theory.number_formats import NumberFormat, number_format
    from promptlimits.theory.token_capacity import (
        CountingCeiling,
        counting_ceiling,
        shortest_prompt,
    )
    from promptlimits.tuning.config import TrainingConfig
    from promptlimits.tuning.loop import Fit, train
    from promptlimits.tuning.outcome import Outcome
    from promptlimits.tuning.state import TrainingState

__version__ = "0.1.0"

# Public name -> the module that defines it.
_DEFINED_IN = {
    "Assumption": "promptlimits.bound",
    "Certificate": "promptlimits.bound",
    "CountingCeiling": "promptlimits.theory.token_capacity",
    "EncodedPair": "promptlimits.models.protocol",
    "EncodedTask": "promptlimits.tasks.encoded",
    "Fit": "promptlimits.tuning.loop",
    "FrozenModel": "promptlimits.models.protocol",
    "HuggingFaceCausalLM": "promptlimits.models.huggingface.causal",
    "LogBound": "promptlimits.bound",
    "ModelCard": "promptlimits.models.protocol",
    "NumberFormat": "promptlimits.theory.number_formats",
    "Order": "promptlimits.capacity.ordering",
    "Outcome": "promptlimits.tuning.outcome",
    "PackedPairs": "promptlimits.models.protocol",
    "Pair": "promptlimits.tasks.pairs",
    "PairTask": "promptlimits.tasks.pairs",
    "PromptLimitsError": "promptlimits.errors",
    "PromptLimitsWarning": "promptlimits.errors",
    "Request": "promptlimits.capacity.request",
    "RunFailed": "promptlimits.errors",
    "RunRecord": "promptlimits.store",
    "SearchConfig": "promptlimits.capacity.search",
    "Source": "promptlimits.bound",
    "Store": "promptlimits.store",
    "TextCodec": "promptlimits.models.protocol",
    "TrainingConfig": "promptlimits.tuning.config",
    "TrainingState": "promptlimits.tuning.state",
    "UserError": "promptlimits.errors",
    "Verification": "promptlimits.capacity.verification",
    "Witness": "promptlimits.capacity.witness_format",
    "capitals": "promptlimits.tasks.builtin",
    "check_counting": "promptlimits.checking.counting",
    "counting_ceiling": "promptlimits.theory.token_capacity",
    "encode": "promptlimits.tasks.encoded",
    "load_parts": "promptlimits.models.huggingface.load",
    "load_task": "promptlimits.tasks.resolve",
    "measure": "promptlimits.capacity.measure",
    "number_format": "promptlimits.theory.number_formats",
    "pack": "promptlimits.models.protocol",
    "random_pairs": "promptlimits.tasks.random_tokens",
    "read_pairs": "promptlimits.tasks.pairs",
    "read_witness": "promptlimits.capacity.witness_format",
    "save_witness": "promptlimits.capacity.witness_format",
    "shortest_prompt": "promptlimits.theory.token_capacity",
    "train": "promptlimits.tuning.loop",
    "verify_in_fresh_process": "promptlimits.capacity.fresh_process",
    "write_report": "promptlimits.report.html",
}

__all__ = [
    "Assumption",
    "Certificate",
    "CountingCeiling",
    "EncodedPair",
    "EncodedTask",
    "Fit",
    "FrozenModel",
    "HuggingFaceCausalLM",
    "LogBound",
    "ModelCard",
    "NumberFormat",
    "Order",
    "Outcome",
    "PackedPairs",
    "Pair",
    "PairTask",
    "PromptLimitsError",
    "PromptLimitsWarning",
    "Request",
    "RunFailed",
    "RunRecord",
    "SearchConfig",
    "Source",
    "Store",
    "TextCodec",
    "TrainingConfig",
    "TrainingState",
    "UserError",
    "Verification",
    "Witness",
    "__version__",
    "capitals",
    "check_counting",
    "counting_ceiling",
    "encode",
    "load_parts",
    "load_task",
    "measure",
    "number_format",
    "pack",
    "random_pairs",
    "read_pairs",
    "read_witness",
    "save_witness",
    "shortest_prompt",
    "train",
    "verify_in_fresh_process",
    "write_report",
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
