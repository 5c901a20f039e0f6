"""Axis legend, used in every shape that a docstring or a signature gives.

B  problems: prompts trained side by side (restarts, seeds)
K  pairs of a key and a value
T  input tokens of all pairs, packed end to end
R  positions whose next token is scored
P  prompt tokens (m_p in the papers)
L  tokens of the longest pair
D  width of the residual stream (d in the papers)
H  attention heads (h in the papers)
V  vocabulary
"""

from __future__ import annotations

from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]
Fact: TypeAlias = "str | int | float | bool | None"
