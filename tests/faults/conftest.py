"""The chain of folders that the faults happen to, made once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from tests.faults.chain import COMMANDS, make_chain, run_here
from tests.faults.steps import Steps


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def undisturbed(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Folder, int]]:
    """Run a command once without disturbance: what it makes, and in how many steps."""
    known: dict[str, tuple[Folder, int]] = {}

    def run(name: str) -> tuple[Folder, int]:
        if name not in known:
            out = tmp_path_factory.mktemp("whole") / "out"
            steps = Steps(out)
            code, said = run_here(COMMANDS[name].line(chain, out), steps)
            assert code == 0, said
            known[name] = open_folder(out), len(steps.done)
        return known[name]

    return run
