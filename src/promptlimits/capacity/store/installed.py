"""What is installed beside this package, and what the package's own metadata allows."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

_PACKAGE = "promptlimits"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A library as it is installed.

    Attributes:
        name: Its name on the package index.
        version: Its version; None where it is not installed.
        allowed: Versions that this package works with; every one where it asks for none.
    """

    name: str
    version: str | None
    allowed: SpecifierSet

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


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


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
