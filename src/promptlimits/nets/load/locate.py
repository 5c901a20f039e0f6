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

from promptlimits.base.errors import UserError
from promptlimits.nets.files.cache import Progress, built, no_progress
from promptlimits.nets.files.catalog import CATALOG, CatalogEntry, find_entry, suggestion
from promptlimits.nets.load.install import install, install_gguf
from promptlimits.nets.load.network import quiet

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# When a download breaks off, the hub's client lets its HTTP library's error through. Which
# library that is changes; its error is a base of the client's own, as OSError is.
HTTP_ERRORS: Final[tuple[type[Exception], ...]] = tuple(
    base for base in HfHubHTTPError.__mro__ if issubclass(base, Exception) and base is not Exception
)
_HUB_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, kw_only=True)
class Located:
    """A model directory on this machine."""

    name: str  # for people
    directory: Path  # where its files are
    path: str  # what stock tools load it from: the directory, or the hub id
    source: str  # where it came from: "catalog", "hub", or the path as it was given
    notes: tuple[str, ...] = ()  # facts a report must show


def locate(
    reference: str,
    *,
    allow_hub: bool = True,
    allow_local: bool = True,
    on_progress: Progress = no_progress,
) -> Located:
    """Find the directory of a model, fetching or converting it if need be.

    In this order: a catalog name, a GGUF file or a directory, a hub id. A directory that is
    called like a catalog model is written `./name`.
    """
    entry = find_entry(reference)
    if entry is not None:
        return _of_catalog(entry, install(entry, on_progress=on_progress))
    path, is_directory, is_file = _look_up(reference) if allow_local else (Path(), False, False)
    if is_directory:
        return _of_directory(path.resolve(), reference)
    if is_file:
        directory, note = install_gguf(path.resolve(), on_progress=on_progress)
        return Located(
            name=_own_name(path.stem, "file"),
            directory=directory,
            path=str(directory),
            source=reference,
            notes=(note,),
        )
    if is_hub_id(reference):
        return _from_hub(reference, allow_hub=allow_hub, on_progress=on_progress)
    raise _unknown(reference)


def is_hub_id(reference: str) -> bool:
    """Whether it reads as org/name: one slash, and nothing that only a path has."""
    return bool(_HUB_ID.fullmatch(reference)) and not reference.endswith(".gguf")


def _of_catalog(entry: CatalogEntry, directory: Path) -> Located:
    return Located(
        name=entry.name,
        directory=directory,
        path=str(directory),
        source="catalog",
        notes=entry.notes,
    )


def _of_directory(directory: Path, reference: str) -> Located:
    """A directory of the user; one of the cache is the catalog's model that it holds."""
    try:
        str(directory).encode()
    except UnicodeEncodeError:  # safetensors and tokenizers open no other path
        raise UserError(
            "model",
            "lie under a path of UTF-8 characters",
            got=repr(os.fsencode(directory)),
            remedy="rename the folder",
        ) from None
    for entry in CATALOG:
        ready = built(entry.cache_name)
        if ready is not None and ready.resolve() == directory:
            return _of_catalog(entry, directory)
    return Located(
        name=_own_name(directory.name, "folder"),
        directory=directory,
        path=str(directory),
        source=reference,
    )


def _own_name(name: str, kind: str) -> str:
    """The name of a model of the user's own, which is never that of a catalog model."""
    return name if find_entry(name) is None else f"{name} ({kind})"


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
        source="hub",
        notes=(f"hub revision {directory.name}",),
    )
