"""Import Keras without its noise, whatever the backend, and tell what it runs on.

Every other module of ours takes `keras` and `ops` from here, so that the environment is set before the first import:
TensorFlow otherwise writes a page about oneDNN and absent CUDA drivers to stderr.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray
from bfrbctl.errors import UsageError

STDERR = 2
"""The file descriptor that C++ libraries write to, past sys.stderr."""

_JAX_FLAG = "--xla_gpu_deterministic_ops=true"


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what libraries write to the stderr descriptor to ourselves, unless the block fails.

    Replacing sys.stderr is not enough: the lines come from C++ before its logging is set up, when no environment
    variable is looked at yet.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(STDERR)
    except OSError:  # a daemon may have closed it; then there is nothing to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), STDERR)
        try:
            yield
        except BaseException:
            os.dup2(kept, STDERR)
            heard.seek(0)
            os.write(STDERR, heard.read())
            raise
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)


def _import_keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with quiet_stderr():
        found = import_module("keras")
        if found.backend.backend() == "tensorflow":  # JAX reads its flags as it wakes: see demand_determinism
            found.ops.zeros((1,))  # wakes the device, which has more to say
    return found


keras: Any = _import_keras()
ops: Any = keras.ops


def to_numpy(tensor: Any) -> AnyArray:
    """Copy a tensor or variable to NumPy.

    `convert_to_numpy` would do for both, but TensorFlow's variables do not know NumPy 2's `copy` keyword and warn.
    """
    return np.array(tensor.numpy() if isinstance(tensor, keras.Variable) else ops.convert_to_numpy(tensor))


def backend_name() -> str:
    """Name the backend in use: tensorflow, torch or jax."""
    return str(keras.backend.backend())


def demand_determinism() -> None:
    """Ask the backend for kernels that give the same bits every time, slower on a GPU; CPUs do so anyway.

    Raises
    ------
    UsageError
        When JAX runs on a GPU already and was started without.
    """
    name = backend_name()
    if name == "tensorflow":
        import_module("tensorflow").config.experimental.enable_op_determinism()
    elif name == "torch":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        import_module("torch").use_deterministic_algorithms(True)
    else:
        _set_jax_flag()


def _set_jax_flag() -> None:
    """Set a flag that JAX reads once, when its first array is made."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _JAX_FLAG in flags.split():
        return
    woken = import_module("jax._src.xla_bridge").backends_are_initialized()  # there is no public way to ask
    if woken and import_module("jax").default_backend() != "cpu":
        raise UsageError(
            f"deterministic: JAX was started in this process without {_JAX_FLAG}, which it reads only once",
            hint=f"set XLA_FLAGS={_JAX_FLAG} and start Python again",
        )
    os.environ["XLA_FLAGS"] = f"{flags} {_JAX_FLAG}".strip()
