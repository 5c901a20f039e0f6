"""How hypothesis runs here."""

from __future__ import annotations

from hypothesis import settings

# The same examples on each run, and no deadline: machines are shared.
settings.register_profile("promptlimits", deadline=None, derandomize=True)
settings.load_profile("promptlimits")
