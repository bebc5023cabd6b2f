"""Flags of JAX are set before it wakes: with stand-ins of Keras and JAX, and with the real ones where they are."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FLAG = "--xla_gpu_deterministic_ops=true"

KERAS = """
from jax._src import xla_bridge
class backend:
    backend = staticmethod(lambda: "jax")
class ops:
    zeros = staticmethod(lambda shape: xla_bridge.wake())
class Variable: ...
"""
XLA_BRIDGE = """
import os
woken_with = None
def wake():
    global woken_with
    if woken_with is None:
        woken_with = os.environ.get("XLA_FLAGS", "")
def backends_are_initialized():
    return woken_with is not None
"""


def run(script: str, *places: Path, **environment: str) -> str:
    """Run a script in a process of its own, which finds modules in `places` first."""
    inherited = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    path = os.pathsep.join(map(str, (*places, ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**inherited, "PYTHONPATH": path, "KERAS_BACKEND": "jax", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """Modules `keras` and `jax` of which the first array reads the flags, as the real ones do."""
    (tmp_path / "jax" / "_src").mkdir(parents=True)
    (tmp_path / "keras.py").write_text(KERAS)
    (tmp_path / "jax" / "__init__.py").write_text("import os\ndefault_backend = lambda: os.environ['DEVICE']\n")
    (tmp_path / "jax" / "_src" / "__init__.py").touch()
    (tmp_path / "jax" / "_src" / "xla_bridge.py").write_text(XLA_BRIDGE)
    return tmp_path


BEFORE = """
from bfrbctl.models.keras.backend import demand_determinism, ops
demand_determinism()
demand_determinism()
ops.zeros((1,))
from jax._src import xla_bridge
print(xla_bridge.woken_with)
"""


def test_jax_wakes_with_the_flag_that_makes_it_deterministic(stand_ins: Path) -> None:
    assert run(BEFORE, stand_ins, DEVICE="gpu") == FLAG
    assert run(BEFORE, stand_ins, DEVICE="gpu", XLA_FLAGS="--xla_other=1") == f"--xla_other=1 {FLAG}"


AFTER = """
from bfrbctl.errors import UsageError
from bfrbctl.models.keras.backend import demand_determinism, ops
ops.zeros((1,))
try:
    demand_determinism()
except UsageError as error:
    print(error)
"""


def test_a_demand_that_comes_too_late_for_jax_is_refused(stand_ins: Path) -> None:
    output = run(AFTER, stand_ins, DEVICE="gpu")
    assert f"JAX was started in this process without {FLAG}" in output
    assert f"hint: set XLA_FLAGS={FLAG} and start Python again" in output
    assert run(AFTER, stand_ins, DEVICE="gpu", XLA_FLAGS=FLAG) == ""
    assert run(AFTER, stand_ins, DEVICE="cpu") == ""


REAL = """
import os, sys
from pathlib import Path
import jax
from bfrbctl.models.keras.learning import fitting as keras_fitting
from bfrbctl.models.keras.model import fit
from bfrbctl.models.keras.settings import Config
from tests.keras_batches import task

demand = keras_fitting.demand_determinism

def demand_and_more():
    demand()
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"  # what can be seen of flags on a CPU

keras_fitting.demand_determinism = demand_and_more
fit(task(Path(sys.argv[-1]) / "scratch"), Config(network="two-branch", width=0.1, epochs=1, deterministic=True))
print(jax.device_count(), os.environ["XLA_FLAGS"].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_training_wakes_jax_after_its_flags_are_set(tmp_path: Path) -> None:
    script = REAL.replace("sys.argv[-1]", repr(str(tmp_path)))
    assert run(script, JAX_PLATFORMS="cpu") == f"2 {FLAG}"
