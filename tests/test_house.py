"""The house rules that a machine can check."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import promptlimits

HEAVY = ("torch", "transformers", "peft", "matplotlib", "scipy")
LINES_OF_A_MODULE = 500


def _heavy_modules_after(code):
    """Run code in a fresh interpreter and name the heavy modules it imported."""
    probe = f"{code}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_imports_nothing_heavy():
    assert _heavy_modules_after("import promptlimits; dir(promptlimits)") == []


@pytest.mark.parametrize("arguments", [["--help"], ["bracket", "--help"], ["--version"]])
def test_asking_for_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['promptlimits', *{arguments}]\n"
        "from promptlimits.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
    )
    assert _heavy_modules_after(code) == []


def test_every_public_name_resolves_to_what_its_module_defines():
    for name in dir(promptlimits):
        assert getattr(promptlimits, name) is not None
    assert promptlimits.UserError.__module__ == "promptlimits.base.errors"


def test_the_public_names_are_those_that_type_checkers_see():
    assert {"UserError", "Store", "train", "pack", "__version__"} <= set(dir(promptlimits))
    starred = {}
    exec("from promptlimits import *", starred)
    assert set(dir(promptlimits)) == set(starred) - {"__builtins__"}


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        promptlimits.nothing  # noqa: B018 - looking it up is the test


def test_the_installed_version_is_the_one_in_the_source():
    assert importlib.metadata.version("promptlimits") == promptlimits.__version__


def test_every_dependency_is_pinned_within_its_range(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    asked = [
        Requirement(text)
        for text in project["dependencies"]
        + project["optional-dependencies"]["dev"]
        + project["optional-dependencies"]["parquet"]
    ]
    pins = dict(
        line.split("==")
        for line in (repository / "constraints-cpu.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    for requirement in asked:
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"{requirement} against {pin}"


def test_every_import_is_a_declared_dependency(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    # What an extra brings is imported where its absence is told to the user.
    texts = project["dependencies"] + project["optional-dependencies"]["parquet"]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    published_by = importlib.metadata.packages_distributions()
    imported = {
        name.partition(".")[0]
        for path in repository.glob("src/**/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported_names(node)
    } - {"promptlimits", *sys.stdlib_module_names}
    undeclared = {
        name
        for name in imported
        if not declared & {canonicalize_name(d) for d in published_by.get(name, [])}
    }
    assert undeclared == set()


def _imported_names(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None:
        return [node.module]
    return []


def test_no_module_is_longer_than_the_ceiling(repository):
    modules = [*repository.glob("src/**/*.py"), *repository.glob("tests/**/*.py")]
    assert modules
    long = {
        str(path.relative_to(repository)): count
        for path in modules
        if (count := len(path.read_text().splitlines())) > LINES_OF_A_MODULE
    }
    assert long == {}


def test_the_readme_names_make_targets_that_exist(repository):
    named = set(re.findall(r"`?make ([a-z-]+)`?", (repository / "README.md").read_text()))
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    assert {"bracket", "test"} <= named <= targets
    assert len((repository / "README.md").read_text().splitlines()) < 120


def test_the_changelog_lists_the_numbers_that_change(repository):
    assert "### Numbers that change" in (repository / "CHANGELOG.md").read_text()


def test_every_reference_key_used_is_defined(repository):
    """Bounds name their source by its key; documents write it as [@key]."""
    defined = re.findall(r"^## (\w+)$", (repository / "REFERENCES.md").read_text(), re.MULTILINE)
    assert len(defined) == len(set(defined))
    used = {
        key
        for path in repository.glob("src/**/*.py")
        for key in re.findall(r"\breference=\"(\w+)\"|\[@(\w+)\]", path.read_text())
    } | {
        ("", key)
        for path in [*repository.glob("docs/*.md"), *repository.glob("*.md")]
        for key in re.findall(r"\[@(\w+)\]", path.read_text())
    }
    keys = {bound or written for bound, written in used} - {"promptlimits", "key"}
    assert keys
    assert keys <= set(defined)
