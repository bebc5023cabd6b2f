"""Keep NumPy's matrix products to one thread, while we share work among threads ourselves."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_LOCK = threading.Lock()
_USERS: list[Any] = []
"""One entry for each block that runs now; the first one is what gives the library its threads back."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let matrix products use one thread in this block, whatever other blocks run at the same time.

    The setting is the library's, so the whole process has it until the last block ends.
    """
    with _LOCK:
        _USERS.append(_USERS[0] if _USERS else _controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _LOCK:
            limit = _USERS.pop()
            if not _USERS:
                limit.restore_original_limits()


@cache
def _controller() -> ThreadpoolController:
    """Find the libraries, which takes milliseconds."""
    return ThreadpoolController()
