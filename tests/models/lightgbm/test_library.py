import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bfrbctl.models.lightgbm.library import parameter_names

PACKAGE = Path(__file__).parents[3] / "bfrbctl"


def test_the_library_is_imported_in_one_place() -> None:
    importers = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "lightgbm" for alias in node.names)
    ]
    assert importers == ["models/lightgbm/library.py"]


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_sleep_unless_told_otherwise(before: str | None, after: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if before is None else {"OMP_WAIT_POLICY": before}
    script = (
        "import os, sys\n"
        "import bfrbctl.models.interface\n"
        "assert 'lightgbm' not in sys.modules\n"
        "bfrbctl.models.interface.kind_module('lgbm')\n"
        "print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after


def test_parameters_are_known_by_their_aliases() -> None:
    names = parameter_names()
    assert names["eta"] == names["learning_rate"] == "learning_rate"
    assert names["n_estimators"] == "num_iterations"
