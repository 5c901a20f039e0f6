"""Which versions the replay matrix tries, and what it says where it can try none."""

import importlib.metadata
import importlib.util
import subprocess

import pytest
from packaging.requirements import Requirement

HERE = {name: importlib.metadata.version(name) for name in ("transformers", "peft")}


@pytest.fixture
def matrix(repository):
    spec = importlib.util.spec_from_file_location("matrix", repository / "tools/replay_matrix.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_ends_are_the_lowest_and_newest_releases_of_the_range(matrix):
    every = ["5.24.0", "5.23.10", "5.23.9", "5.23.1", "5.22.2", "5.23.11rc1"]
    assert matrix.ends(Requirement("t>=5.23,<5.24"), every) == ("5.23.1", "5.23.10")
    with pytest.raises(SystemExit, match="no release of t is in"):
        matrix.ends(Requirement("t>=6"), every)


def test_the_ranges_are_read_from_pyproject(matrix, repository):
    asked = matrix.asked((repository / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(asked) == {"transformers", "peft"}
    assert all(one.specifier.contains(HERE[name]) for name, one in asked.items())


def test_only_what_differs_is_installed(matrix, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    assert not matrix.installed_in(tmp_path, HERE)
    assert matrix.installed_in(tmp_path, {**HERE, "peft": "0.0.1"})
    (command,) = commands
    assert command[-4:] == ["--no-deps", "--target", str(tmp_path), "peft==0.0.1"]


def test_what_a_library_needs_and_is_not_here_is_named(matrix, tmp_path):
    about = tmp_path / "one-1.0.dist-info"
    about.mkdir()
    needs = ["peft>=99", "transformers>=4", "nowhere; extra == 'dev'"]
    lines = ["Metadata-Version: 2.1", "Name: one", "Version: 1.0"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    (about / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert matrix.unmet(tmp_path) == [f"one 1.0 needs peft>=99, {HERE['peft']} is here"]


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_without_an_index_it_says_so_and_fails_in_ci_only(ci, code, matrix, monkeypatch, capsys):
    def run(*_, **__):
        return subprocess.CompletedProcess([], 1, stdout="", stderr="ERROR: no route to host\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("CI", ci)
    assert matrix.main() == code
    said = capsys.readouterr().out
    assert "nothing was tried, no package index answers (ERROR: no route to host)" in said


def test_both_ends_are_tried_each_once(matrix, monkeypatch, capsys):
    tried = []
    monkeypatch.setattr(matrix, "released", lambda name: [HERE[name], f"{HERE[name]}.post1"])
    monkeypatch.setattr(matrix, "installed_in", lambda _folder, versions: versions != HERE)
    monkeypatch.setattr(matrix, "unmet", lambda _folder: [])
    monkeypatch.setattr(matrix, "replay", lambda folder: tried.append(folder is not None) or 0)
    assert matrix.main() == 0
    assert tried == [False, True]
    monkeypatch.setattr(matrix, "released", lambda name: [HERE[name]])
    assert matrix.main() == 0
    assert tried == [False, True, False]
    monkeypatch.setattr(matrix, "replay", lambda _folder: 1)
    assert matrix.main() == 1
    assert "FAILED under transformers" in capsys.readouterr().out
