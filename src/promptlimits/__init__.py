"""How much a prompt can hold: what was found, what is proved, and what lies between.

The whole public API is what this module exports; everything else may change without notice.
Names are looked up on first use, so that `import promptlimits` never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptlimits.errors import (
        PromptLimitsError,
        PromptLimitsWarning,
        RunFailed,
        UserError,
    )
    from promptlimits.models.protocol import FrozenModel, ModelCard, TextCodec
    from promptlimits.tuning.outcome import Outcome

__version__ = "0.1.0"

# Public name -> the module that defines it.
_DEFINED_IN = {
    "FrozenModel": "promptlimits.models.protocol",
    "ModelCard": "promptlimits.models.protocol",
    "Outcome": "promptlimits.tuning.outcome",
    "PromptLimitsError": "promptlimits.errors",
    "PromptLimitsWarning": "promptlimits.errors",
    "RunFailed": "promptlimits.errors",
    "TextCodec": "promptlimits.models.protocol",
    "UserError": "promptlimits.errors",
}

__all__ = [
    "FrozenModel",
    "ModelCard",
    "Outcome",
    "PromptLimitsError",
    "PromptLimitsWarning",
    "RunFailed",
    "TextCodec",
    "UserError",
    "__version__",
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
