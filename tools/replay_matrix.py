"""Replay witnesses under the lowest and the newest transformers and PEFT that pyproject allows.

    python tools/replay_matrix.py        (`make replay-matrix`; `.ci/run` runs it before the tests)

Asks the package index which releases the ranges of pyproject.toml allow, puts the lowest of both
libraries into one folder and the newest into another, each without its dependencies, and runs the
tests that save witnesses and replay them with that folder in front of PYTHONPATH. What this
environment has is not installed again, and the environment is left as it is. Without a package
index it says so and ends well, but where the variable CI is set, as in `.ci/run`: there it fails,
because nothing was tried.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parent.parent
LIBRARIES: Final = ("transformers", "peft")
TESTS: Final = (
    "tests/capacity/witness/test_replay.py",
    "tests/capacity/witness/test_stock.py",
    "tests/capacity/witness/test_witness_process.py::test_a_fresh_process_confirms_the_same",
)


class NoIndex(Exception):
    """No package index answered."""


def asked(pyproject: str) -> dict[str, Requirement]:
    """What pyproject asks of the two libraries.

    Args:
        pyproject: Text of pyproject.toml.

    Returns:
        Their requirements, by name.
    """
    every = map(Requirement, tomllib.loads(pyproject)["project"]["dependencies"])
    return {one.name: one for one in every if one.name in LIBRARIES}


def ends(requirement: Requirement, released: Iterable[str]) -> tuple[str, str]:
    """The lowest and the newest release that a range allows.

    Args:
        requirement: A library and its range.
        released: Versions on the index.

    Returns:
        Two versions, which can be the same.
    """
    allowed = sorted(requirement.specifier.filter(released), key=Version)
    if not allowed:
        raise SystemExit(f"replay-matrix: no release of {requirement.name} is in {requirement}")
    return allowed[0], allowed[-1]


def released(name: str) -> list[str]:
    """Versions of a library on the package index that pip is set up for."""
    done = subprocess.run(
        [*_pip(), "index", "versions", "--json", name],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NoIndex(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no answer")
    return list(json.loads(done.stdout)["versions"])


def installed_in(folder: Path, versions: Mapping[str, str]) -> bool:
    """Install what this environment has in other versions, without dependencies.

    Args:
        folder: Where to.
        versions: The version of each library.

    Returns:
        Whether anything had to be installed.
    """
    other = [f"{n}=={v}" for n, v in versions.items() if importlib.metadata.version(n) != v]
    if other:
        target = ["--target", str(folder)]
        subprocess.run([*_pip(), "install", "--quiet", "--no-deps", *target, *other], check=True)
    return bool(other)


def unmet(folder: Path) -> list[str]:
    """What the libraries of a folder ask for and this environment has not.

    Args:
        folder: The folder, in front of the environment.

    Returns:
        A line for each requirement that does not hold.
    """
    own = {one.name: one for one in importlib.metadata.distributions(path=[str(folder)])}
    lines = []
    for library in own.values():
        for need in map(Requirement, library.requires or []):
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            there = own.get(need.name)
            version = there.version if there else importlib.metadata.version(need.name)
            if not need.specifier.contains(version, prereleases=True):
                lines.append(f"{library.name} {library.version} needs {need}, {version} is here")
    return lines


def replay(folder: Path | None) -> int:
    """Run the tests that replay witnesses with a folder in front of everything."""
    front = [] if folder is None else [str(folder)]
    path = os.pathsep.join([*front, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    ).returncode


def main() -> int:
    """Try both ends.

    Returns:
        The exit code.
    """
    wanted = asked((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    try:
        both = {name: ends(wanted[name], released(name)) for name in LIBRARIES}
    except NoIndex as error:
        print(f"replay-matrix: nothing was tried, no package index answers ({error})")
        return 1 if os.environ.get("CI") else 0
    tried: set[tuple[str, ...]] = set()
    for end, which in enumerate(("lowest", "newest")):
        versions = {name: both[name][end] for name in LIBRARIES}
        if tuple(versions.values()) in tried:
            continue
        tried.add(tuple(versions.values()))
        said = " with ".join(f"{name} {version}" for name, version in versions.items())
        print(f"replay-matrix: the {which} allowed: {said}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            added = installed_in(Path(folder), versions)
            faults = unmet(Path(folder))
            for fault in faults:
                print(f"replay-matrix: {fault}")
            if faults or replay(Path(folder) if added else None) != 0:
                print(f"replay-matrix: FAILED under {said}")
                return 1
    return 0


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check"]


if __name__ == "__main__":
    sys.exit(main())
