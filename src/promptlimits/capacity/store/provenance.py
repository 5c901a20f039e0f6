"""Where a number came from: canonical JSON, its hash, and what is installed.

Nothing here says who or where: no user, no host name, no path of the machine.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from promptlimits.base.errors import UserError
from promptlimits.base.files import Fact, JsonObject, JsonValue

_PACKAGE = "promptlimits"
_PACKAGES = ("torch", "transformers", "peft", "numpy", "safetensors", "tokenizers", "gguf")
_GIT_SECONDS = 10.0


def canonical_json(value: JsonValue, *, name: str = "record") -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII, no NaN or infinity.

    Floats are written with the fewest digits that read back to the same float64, so the text
    loses nothing. 1 and 1.0 are different texts: a spec that counts must hold integers.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            name,
            "hold only JSON values with finite numbers",
            got=f"one that cannot be written ({error})",
            remedy="turn it into text, numbers, lists and objects first",
        ) from error


def spec_hash(spec: JsonObject) -> str:
    """SHA-256 of a spec's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(spec, name="spec").encode("ascii")).hexdigest()


def provenance(extra: Mapping[str, Fact] | None = None) -> dict[str, Fact]:
    """What must be known to make a number again: versions, commit, machine kind.

    Libraries are asked for their installed version without being imported.
    """
    facts: dict[str, Fact] = {
        _PACKAGE: _version(_PACKAGE),
        **_checkout(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{package: _version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }
    facts.update(extra or {})
    return facts


def _version(package: str) -> str | None:
    """The installed version of a package, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _checkout(directory: Path = Path(__file__).parent) -> dict[str, str | bool | None]:
    """Commit and dirty flag of the checkout that this package runs from.

    Kept for the process: what was imported does not change when the checkout does. An
    installed copy inside somebody else's checkout is not tracked there and has no commit.
    """
    unknown: dict[str, str | bool | None] = {"git_commit": None, "git_dirty": None}
    if not _git(directory, "ls-files", Path(__file__).name):
        return unknown
    commit = _git(directory, "rev-parse", "HEAD")
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return unknown
    return {"git_commit": commit.strip(), "git_dirty": bool(changes.strip())}


def _git(directory: Path, *arguments: str) -> str | None:
    """Output of a git command that changes nothing, or None where it failed."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A library as it is installed."""

    name: str  # its name on the package index
    version: str | None  # its version; None where it is not installed
    allowed: SpecifierSet  # versions that this package works with; every one where it asks for none

    @property
    def good(self) -> bool:
        """Whether it is installed in an allowed version."""
        return self.version is not None and self.allowed.contains(self.version, prereleases=True)

    @property
    def requirement(self) -> str:
        """Name and allowed versions, as pip takes them: "peft>=0.21,<0.22"."""
        return self.name + ",".join(sorted(map(str, self.allowed), reverse=True))


def installed(name: str) -> Installed:
    """Look a library up, without importing it."""
    return Installed(name=name, version=_version(name), allowed=_allowed(name))


def pip_command(libraries: Iterable[Installed]) -> str:
    """The command that puts allowed versions into the environment of this process."""
    wanted = [library.requirement for library in libraries]
    return shlex.join([sys.executable, "-m", "pip", "install", *wanted])


def _allowed(name: str) -> SpecifierSet:
    """What this package asks for; nothing where it runs from a source tree uninstalled."""
    try:
        asked = importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return SpecifierSet()
    for requirement in map(Requirement, asked):
        of_an_extra = requirement.marker is not None and not requirement.marker.evaluate()
        if canonicalize_name(requirement.name) == canonicalize_name(name) and not of_an_extra:
            return requirement.specifier
    return SpecifierSet()
