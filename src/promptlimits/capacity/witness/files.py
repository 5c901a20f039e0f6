"""Names of a witness folder's files, and what is said of one that is not as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from promptlimits.base.errors import UserError
from promptlimits.base.files import read_regular_text
from promptlimits.base.typing import JsonObject
from promptlimits.base.writing import recover, standing

WITNESS_FILE: Final = "witness.json"
ADAPTER_FILE: Final = "adapter_model.safetensors"
CONFIG_FILE: Final = "adapter_config.json"
REPLAY_FILE: Final = "replay.py"
WITNESS_FILES: Final = (ADAPTER_FILE, CONFIG_FILE, WITNESS_FILE, REPLAY_FILE)


def json_bytes(document: JsonObject) -> bytes:
    """A JSON object as the bytes of a file."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # A file's name may hold a lone surrogate: no UTF-8 has it, strict readers refuse its escape.
    return (text + "\n").encode("utf-8", errors="replace")


def read_object(directory: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a witness folder."""
    place = standing(directory)
    if not place.is_dir():
        raise UserError(
            str(directory),
            "be a witness folder",
            got="nothing there" if not directory.exists() else "a file",
            remedy="give the folder that holds witness.json",
        )
    try:
        document = json.loads(read_regular_text(place / name))
    except FileNotFoundError:
        raise UserError(
            str(directory),
            f"hold {name}",
            got="a folder without it",
            remedy="give the folder that holds witness.json",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise broken(directory, name, getattr(error, "strerror", None) or str(error)) from error
    if not isinstance(document, dict):
        raise broken(directory, name, f"{type(document).__name__} where an object should be")
    return document


def broken(directory: Path, name: str, detail: str) -> UserError:
    """The error for a file that nothing can be made of."""
    return UserError(
        str(directory / name),
        "be as promptlimits wrote it",
        got=f"one that cannot be read ({detail})",
        remedy="make the witness again with promptlimits bracket",
    )


def altered(directory: Path, name: str, what: str) -> UserError:
    """The error for a file that is whole, but not the one whose hash was recorded."""
    return UserError(
        str(directory / name),
        f"hold the {what} that the hash in {WITNESS_FILE} was taken of",
        got=f"altered {what}",
        remedy="restore the folder from a copy, or make the witness again",
    )


def require_replaceable(directory: Path) -> None:
    """Only an older witness may be replaced: never a folder with somebody's other files."""
    recover(directory, WITNESS_FILES)
    if not directory.exists():
        return
    if directory.is_dir() and (
        (directory / WITNESS_FILE).is_file() or not any(directory.iterdir())
    ):
        return
    raise UserError(
        str(directory),
        "be a new folder or an older witness",
        got="one that holds something else",
        remedy="choose another output folder",
    )
