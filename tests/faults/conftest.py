"""The chain of folders that the faults happen to, made once a session."""

from pathlib import Path

import pytest

from tests.faults.chain import make_chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chain(tmp_path_factory.mktemp("chain"))
