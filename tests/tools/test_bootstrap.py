"""The bootstrap, run with a Python that only writes down what it was asked to do."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the bootstrap is for POSIX shells")

# Stands in for the interpreter that makes .venv and, copied there, for the one inside it.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$FAKE_CALLS"
case "$*" in
*--version*) echo "Python $FAKE_VERSION" ;;
*sys.version_info*) case $FAKE_VERSION in 3.10.*|3.9.*) exit 1 ;; esac ;;
*ensurepip*) [ -z "${FAKE_NO_VENV:-}" ] ;;
*"import promptlimits"*) [ -e "$(dirname "$0")/installed" ] ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*--report*) echo "$FAKE_REPORT" ;;
*--editable*)
    if [ -n "${FAKE_KILL:-}" ]; then kill -9 "$PPID"; fi
    if [ -n "${FAKE_BROKEN:-}" ]; then echo "no such package" >&2; exit 1; fi
    : >"$(dirname "$0")/installed" ;;
-) cat >/dev/null ;;
esac
"""

CPU_REPORT = '{"requires_dist": ["filelock", "sympy>=1.13.3"]}'
CUDA_REPORT = '{"requires_dist": ["filelock", "nvidia-nccl-cu13==2.29.7"]}'


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A directory with what the bootstrap reads, and a PATH where the fakes come first."""

    root: Path
    fakes: Path
    calls: Path

    def bootstrap(self, *arguments, **variables):
        """Run it as make does; fakes are steered by environment variables."""
        self.calls.write_text("")
        environment = {
            "PATH": f"{self.fakes}{os.pathsep}{os.environ['PATH']}",
            "FAKE_CALLS": str(self.calls),
            "FAKE_VERSION": "3.12.1",
            "FAKE_REPORT": CPU_REPORT,
            "FAKE_SYSTEM": "Linux",
            **variables,
        }
        return subprocess.run(
            ["sh", "tools/bootstrap.sh", *arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def asked(self):
        """What the last run asked Python to do."""
        return self.calls.read_text()

    @property
    def stamp(self):
        return self.root / ".venv" / "bootstrap.stamp"


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _executable(path, text):
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path, repository):
    root = tmp_path / "a checkout"
    (root / "tools").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints-cpu.txt", "tools/bootstrap.sh"):
        shutil.copy(repository / name, root / name)
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    _executable(fakes / "python3", FAKE_PYTHON)
    _executable(fakes / "uname", '#!/bin/sh\necho "$FAKE_SYSTEM"\n')
    return Checkout(root=root, fakes=fakes, calls=tmp_path / "calls")


def test_a_second_run_has_nothing_to_do(checkout):
    first = checkout.bootstrap()
    assert first.returncode == 0, first.stderr
    assert "-m venv .venv" in checkout.asked
    assert "--editable .[dev]" in checkout.asked
    assert checkout.asked.count("constraints-cpu.txt") == checkout.asked.count(" install ")

    second = checkout.bootstrap()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert checkout.asked == "-c import promptlimits\n"


def test_each_stage_is_one_line_with_its_seconds(checkout):
    lines = checkout.bootstrap().stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("bootstrap: ") for line in lines)
    assert all(line.endswith(" s") for line in lines[:3])
    assert lines[3].startswith("bootstrap: ready, ")


CHANGES = {
    "pyproject.toml": ('"numpy>=', '"numpy >='),
    "constraints-cpu.txt": ("torch==", "torch == "),
    "tools/bootstrap.sh": ("set -eu\n", "set -e -u\n"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_input_refreshes_in_place(checkout, name):
    checkout.bootstrap()
    before = checkout.stamp.read_text()
    change(checkout.root / name, *CHANGES[name])
    lenient = checkout.bootstrap("lenient")
    assert (lenient.returncode, lenient.stdout) == (0, "")
    assert lenient.stderr.endswith("make bootstrap refreshes it\n")
    assert checkout.asked == "-c import promptlimits\n", "lint and docs need no installation"
    assert checkout.bootstrap().returncode == 0
    assert "-m venv" not in checkout.asked
    assert "--editable" in checkout.asked
    assert checkout.stamp.read_text() != before


def test_a_rule_of_a_linter_needs_no_installation(checkout):
    checkout.bootstrap()
    change(checkout.root / "pyproject.toml", "line-length = 100", "line-length = 99")
    ended = checkout.bootstrap()
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert checkout.asked == "-c import promptlimits\n"


def test_lint_in_a_new_checkout_makes_the_environment(checkout):
    assert checkout.bootstrap("lenient").returncode == 0
    assert "--editable" in checkout.asked


def test_a_failed_install_leaves_no_stamp_and_the_next_run_starts_afresh(checkout):
    failed = checkout.bootstrap(FAKE_BROKEN="yes")
    assert failed.returncode == 1
    assert "no such package" in failed.stderr
    assert "failed: promptlimits and what it needs" in failed.stderr
    assert not checkout.stamp.exists()

    half_made = checkout.root / ".venv" / "half-unpacked"
    half_made.touch()
    assert checkout.bootstrap().returncode == 0
    assert "-m venv" in checkout.asked
    assert not half_made.exists()
    assert checkout.stamp.exists()


def test_a_killed_run_leaves_a_lock_that_the_next_run_takes_over(checkout):
    killed = checkout.bootstrap(FAKE_KILL="yes")
    assert killed.returncode == -signal.SIGKILL
    assert (checkout.root / ".venv.lock").exists()
    assert not checkout.stamp.exists()

    assert checkout.bootstrap().returncode == 0
    assert "-m venv" in checkout.asked
    assert not (checkout.root / ".venv.lock").exists()


def test_a_failed_refresh_is_not_taken_for_finished(checkout):
    checkout.bootstrap()
    change(checkout.root / "constraints-cpu.txt", *CHANGES["constraints-cpu.txt"])
    assert checkout.bootstrap(FAKE_BROKEN="yes").returncode == 1
    assert not checkout.stamp.exists()
    assert checkout.bootstrap().returncode == 0
    assert "-m venv" in checkout.asked


def test_an_environment_of_other_making_is_left_alone(checkout):
    theirs = checkout.root / ".venv" / "mine.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    refused = checkout.bootstrap()
    assert refused.returncode == 1
    assert "move it away or set VENV=other" in refused.stderr
    assert theirs.read_text() == "mine"


@pytest.fixture
def another(checkout):
    """A second checkout beside the first."""
    root = Path(shutil.copytree(checkout.root, checkout.root.with_name("another")))
    return Checkout(root=root, fakes=checkout.fakes, calls=checkout.calls)


@pytest.mark.parametrize("broken", ["", "stamp", "import"])
def test_the_environment_of_another_checkout_is_left_alone(checkout, another, broken):
    checkout.bootstrap()
    theirs = checkout.root / ".venv"
    (theirs / "in-use").touch()
    if broken == "stamp":
        checkout.stamp.unlink()
    elif broken == "import":
        (theirs / "bin" / "installed").unlink()
    before = sorted(theirs.rglob("*"))
    for arguments in ((), ("lenient",)):
        refused = another.bootstrap(*arguments, VENV=str(theirs))
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert f"got one that {checkout.root} made; move it away or set VENV" in refused.stderr
    linked = another.root / ".venv"
    linked.symlink_to(theirs)
    assert another.bootstrap().returncode == 1
    assert sorted(theirs.rglob("*")) == before
    assert sorted(checkout.root.glob(".venv*")) == [theirs], "no lock is left beside it"


def test_an_environment_elsewhere_outlives_its_checkout(checkout, another):
    elsewhere = checkout.root.with_name("shared-venv")
    assert checkout.bootstrap(VENV=str(elsewhere)).returncode == 0
    shutil.rmtree(checkout.root)
    assert another.bootstrap(VENV=str(elsewhere)).returncode == 1
    assert (elsewhere / "bin" / "installed").exists()


def test_a_folder_where_the_lock_goes_is_left_alone(checkout):
    theirs = checkout.root / ".venv.lock" / "mine.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    refused = checkout.bootstrap()
    assert refused.returncode == 1
    assert "must be a lock, got a folder of another making" in refused.stderr
    assert theirs.read_text() == "mine"


def test_a_moved_checkout_gets_a_new_environment(checkout):
    checkout.bootstrap()
    moved = Checkout(
        root=checkout.root.rename(checkout.root.with_name("moved")),
        fakes=checkout.fakes,
        calls=checkout.calls,
    )
    assert moved.bootstrap().returncode == 0
    assert "-m venv" in moved.asked


def test_another_python_gets_a_new_environment_and_is_then_kept(checkout):
    checkout.bootstrap()
    _executable(checkout.fakes / "python9", FAKE_PYTHON)
    assert checkout.bootstrap(PYTHON="python9").returncode == 0
    assert "-m venv" in checkout.asked
    checkout.bootstrap()
    assert checkout.asked == "-c import promptlimits\n"


def test_torch_is_asked_from_its_cpu_index_only_where_cuda_would_come(checkout):
    checkout.bootstrap()
    assert "--index-url" not in checkout.asked

    checkout.stamp.unlink()
    checkout.bootstrap(FAKE_REPORT=CUDA_REPORT)
    asked = [line for line in checkout.asked.splitlines() if "--index-url" in line]
    assert len(asked) == 1
    assert "--no-deps --index-url https://download.pytorch.org/whl/cpu" in asked[0]
    assert asked[0].endswith(" torch")


def test_a_mac_is_asked_nothing_about_cuda(checkout):
    checkout.bootstrap(FAKE_SYSTEM="Darwin", FAKE_REPORT=CUDA_REPORT)
    assert "--report" not in checkout.asked
    assert "--index-url" not in checkout.asked


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PYTHON": "python-none"}, "PYTHON must name an interpreter, got python-none"),
        (
            {"PYTHON": "python3", "FAKE_VERSION": "3.10.9"},
            "PYTHON must be Python 3.11 or newer, got Python 3.10.9",
        ),
        ({"FAKE_NO_VENV": "yes"}, "python3 must have the venv module, got none"),
    ],
)
def test_a_python_that_will_not_do_is_one_line(checkout, variables, message):
    refused = checkout.bootstrap(**variables)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"bootstrap: {message}")
    assert refused.stderr.count("\n") == 1
    assert not (checkout.root / ".venv").exists()


def test_the_oldest_python_is_the_one_that_pyproject_names(repository):
    script = (repository / "tools/bootstrap.sh").read_text()
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    [oldest] = re.findall(r"sys\.version_info < \((\d+), (\d+)\)", script)
    assert project["requires-python"] == f">={'.'.join(oldest)}"
