"""Kinds of model: what each declares, and that one is loaded only when it is asked for."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from bfrbctl.models.interface import KINDS, Average, model_kind
from tests import toy_model


@pytest.mark.parametrize("name", ["lgbm", "keras", "toy"])
def test_a_kind_declares_what_training_reads_of_its_settings(name: str) -> None:
    kind = model_kind(name)
    config = kind.config_class()
    assert kind.name == name
    assert kind.needs <= {"table", "frames", "tof"}
    assert config.n_steps >= 1 and config.STEP
    if kind.load_step:
        assert config.select in ("other-folds", "last") and config.rule and config.why_last == ""
    assert kind.n_members(config) == (config.seeds if kind.fit_member else 1)


def test_what_a_kind_cannot_do_is_none() -> None:
    assert toy_model.KIND.fit_member is toy_model.KIND.rehearse is None
    assert toy_model.KIND.ensemble is Average
    with pytest.raises(FrozenInstanceError):
        toy_model.KIND.fit_member = print  # type: ignore[misc, assignment]


def test_members_are_counted_where_they_can_be_trained_one_by_one() -> None:
    kind = model_kind("lgbm")
    config = kind.config_class(seeds=3)
    assert kind.n_members(config) == 3
    assert replace(kind, fit_member=None).n_members(config) == 1


@pytest.mark.parametrize(
    ("name", "loaded"), [(None, []), ("lgbm", ["lightgbm"]), ("keras", [])], ids=["none", "lgbm", "keras"]
)
def test_a_kind_loads_its_own_library_only(name: str | None, loaded: list[str]) -> None:
    script = (
        "import sys; from bfrbctl.models.interface import model_kind\n"
        f"name = {name!r}; name and model_kind(name)\n"
        "print([each for each in ('lightgbm', 'keras', 'tensorflow', 'torch', 'jax') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(loaded)


def test_the_registry_names_modules_and_imports_nothing() -> None:
    assert {name: KINDS[name] for name in ("lgbm", "keras")} == {
        "lgbm": "bfrbctl.models.lightgbm.kind",
        "keras": "bfrbctl.models.keras.kind",
    }
