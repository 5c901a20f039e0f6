"""Models of what is read from files: strict ones, whose errors name the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from promptlimits.base.files import JsonObject

Item = TypeVar("Item")
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Many = Annotated[tuple[Item, ...], Field(strict=False)]
"""A list of JSON, which alone a strict reader does not take for a tuple."""


class Strict(BaseModel):
    """What is read from a file: no other fields, and no types but those that were written."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        populate_by_name=True,
        protected_namespaces=(),
    )

    def to_json(self) -> JsonObject:
        """The form in files and in what commands print."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; what is anything else raises ValidationError."""
        # Through JSON, whose lists a strict reader takes for tuples.
        return cls.model_validate_json(json.dumps(document))
