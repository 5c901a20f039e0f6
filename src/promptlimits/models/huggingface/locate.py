"""From what the user typed to a directory on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from promptlimits.errors import UserError
from promptlimits.models.cache import Progress, no_progress
from promptlimits.models.catalog import find_entry, suggestion
from promptlimits.models.huggingface.install import install, install_gguf
from promptlimits.models.huggingface.quiet import quiet

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# When a download breaks off, the hub's client lets its HTTP library's error through. Which
# library that is changes; its error is a base of the client's own, as OSError is.
HTTP_ERRORS: Final[tuple[type[Exception], ...]] = tuple(
    base for base in HfHubHTTPError.__mro__ if issubclass(base, Exception) and base is not Exception
)
_HUB_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, kw_only=True)
class Located:
    """A model directory on this machine.

    Attributes:
        name: Short name for people.
        directory: Where its files are.
        path: What stock tools load it from: the directory, or the hub id.
        notes: Facts a report must show.
    """

    name: str
    directory: Path
    path: str
    notes: tuple[str, ...] = ()


def locate(
    reference: str, *, allow_hub: bool = True, on_progress: Progress = no_progress
) -> Located:
    """Find the directory of a model, fetching or converting it if need be.

    In this order: a catalog name, a GGUF file or a directory, a hub id. A directory that is
    called like a catalog model is written `./name`.

    Args:
        reference: What the user typed.
        allow_hub: Whether the hub may be asked; `HF_HUB_OFFLINE=1` forbids it too.
        on_progress: Told of every step.

    Returns:
        Where it is.

    Raises:
        UserError: There is no such model, or it cannot be had.
    """
    entry = find_entry(reference)
    if entry is not None:
        directory = install(entry, on_progress=on_progress)
        return Located(name=entry.name, directory=directory, path=str(directory), notes=entry.notes)
    path, is_directory, is_file = _look_up(reference)
    if is_directory:
        directory = path.resolve()
        return Located(name=directory.name, directory=directory, path=str(directory))
    if is_file:
        directory, note = install_gguf(path.resolve(), on_progress=on_progress)
        return Located(name=path.stem, directory=directory, path=str(directory), notes=(note,))
    # One slash and nothing that only a path has: org/name.
    if _HUB_ID.fullmatch(reference) and not reference.endswith(".gguf"):
        return _from_hub(reference, allow_hub=allow_hub, on_progress=on_progress)
    raise _unknown(reference)


def _look_up(reference: str) -> tuple[Path, bool, bool]:
    """The reference as a path, whether that is a directory, and whether it is a file."""
    path = Path(reference)
    try:
        path = path.expanduser()
        return path, bool(reference.strip()) and path.is_dir(), path.is_file()
    except (OSError, RuntimeError):  # a name that is too long, a folder to keep out of, ~nobody
        return path, False, False


def _unknown(reference: str) -> UserError:
    looks_like_path = os.sep in reference or reference.endswith(".gguf")
    return UserError(
        "model",
        "be a catalog name, a directory, a .gguf file or a hub id (org/name)",
        got=f"{reference!r}, which does not exist",
        remedy="check the path" if looks_like_path else suggestion(reference),
    )


def _from_hub(reference: str, *, allow_hub: bool, on_progress: Progress) -> Located:
    remedy = "give a local directory, or a catalog name (promptlimits models)"
    name = f"model {reference}"
    on_progress(f"looking up {reference} on the hub")
    try:
        with quiet():
            snapshot = snapshot_download(
                reference, allow_patterns=list(_HUB_FILES), local_files_only=not allow_hub
            )
    except GatedRepoError:
        raise UserError(
            name,
            "be open to you on the hub",
            got="a model whose terms you have not accepted",
            remedy="accept them on its page and set HF_TOKEN",
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(name, "exist on the hub", got="no such model", remedy=remedy) from None
    except HTTP_ERRORS:  # offline mode and an absent copy are kinds of OSError
        offline = not allow_hub or os.environ.get("HF_HUB_OFFLINE")
        got = "no copy here, and offline mode" if offline else "no answer"
        raise UserError(
            name, "be a local directory or within reach on the hub", got=got, remedy=remedy
        ) from None
    directory = Path(snapshot)
    return Located(
        name=reference,
        directory=directory,
        path=reference,
        notes=(f"hub revision {directory.name}",),
    )
