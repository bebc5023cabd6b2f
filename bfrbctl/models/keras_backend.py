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

from bfrbctl.segments import AnyArray

STDERR = 2
"""The file descriptor that C++ libraries write to, past sys.stderr."""


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
    """Ask the backend for kernels that give the same bits every time, slower on a GPU; CPUs do so anyway."""
    name = backend_name()
    if name == "tensorflow":
        import_module("tensorflow").config.experimental.enable_op_determinism()
    elif name == "torch":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        import_module("torch").use_deterministic_algorithms(True)
    else:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
