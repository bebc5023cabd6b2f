import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from bfrbctl import errors
from bfrbctl.errors import MissingLibraryError, install_command, missing_library
from bfrbctl.models import interface
from bfrbctl.models.keras import model as keras_model

ROOT = Path(__file__).parent.parent


def test_the_command_that_installs_runs_in_the_environment_of_this_python() -> None:
    words = install_command("--dry-run", "pip").split()
    assert words[0] == sys.executable
    done = subprocess.run([*words, "--quiet", "--no-index"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_pip_it_is_uv_that_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda _: None)
    assert install_command("torch") == f"uv pip install --python {sys.executable} torch"


def test_nothing_advises_an_extra_which_a_checkout_cannot_be_installed_with() -> None:
    places = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bfrbctl/**/*.py"), *ROOT.glob("examples/*")]
    places = [path for path in places if path.name != "CHANGELOG.md" and path.is_file()]
    found = [path.name for path in places if re.search(r"install [^\n]*bfrbctl\[", path.read_text("utf-8"))]
    assert found == []


def test_modules_whose_package_has_another_name_are_told_by_that_name() -> None:
    brought = packages_distributions()
    for module, package in errors._PACKAGES.items():
        assert module not in brought or package in {name.replace("_", "-") for name in brought[module]}
    hint = missing_library("folds", ModuleNotFoundError("no", name="sklearn.model_selection")).hint
    assert hint is not None
    assert hint.endswith("pip install scikit-learn")


def test_a_kind_whose_library_is_absent_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(interface, "import_module", load)
    with pytest.raises(MissingLibraryError, match="a keras model needs torch") as caught:
        interface.kind_module("keras")
    assert caught.value.hint == install_command("torch")


def test_a_fault_of_our_own_modules_is_not_taken_for_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(interface.KINDS, "absent", "bfrbctl.absent_kind")
    with pytest.raises(ModuleNotFoundError, match="absent_kind"):
        interface.kind_module("absent")


def test_a_back_end_of_keras_that_is_absent_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: str) -> None:
        raise ModuleNotFoundError("No module named 'jax'", name="jax")

    monkeypatch.setattr(keras_model, "import_module", load)
    task: Any = None
    for begin in (keras_model.fit, lambda task, config: keras_model.fit_member(task, config, 0)):
        with pytest.raises(MissingLibraryError, match="training networks needs jax") as caught:
            begin(task, keras_model.Config())
        assert caught.value.hint == f"{install_command('jax')}, or choose another KERAS_BACKEND"
