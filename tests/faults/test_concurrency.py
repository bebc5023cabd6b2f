"""Several processes at one folder: one writes and the others are refused; a reader gets one state, never a mixture."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bfrbctl.artefacts.folders import open_folder
from tests.faults.chain import COMMANDS, ROOT
from tests.faults.test_kills import Record

WRITER = """
import sys
from pathlib import Path
from bfrbctl.artefacts.outputs import Job, open_output
from tests.contents import CONTENT

path, rounds = Path(sys.argv[1]), int(sys.argv[2])
for number in range(rounds):
    with open_output(path, Job("dataset", {}, seed=number), force=True) as output:
        for name in "abc":
            output.publish(name, {f"{name}.json": (str(number % 2) * 5000).encode()})
        output.finish(CONTENT["dataset"])
"""

READER = """
import json, sys
from collections import Counter
from pathlib import Path
from bfrbctl.errors import ArtefactError
from bfrbctl.artefacts.folders import open_folder

path, counts = Path(sys.argv[1]), Counter()
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    try:
        folder = open_folder(path)
        contents = {folder.read(name) for name in sorted(folder.files)}
    except ArtefactError:
        counts["refused"] += 1
        continue
    number = folder.manifest["seed"] % 2
    counts["whole" if contents == {str(number).encode() * 5000} and len(folder.files) == 3 else "mixed"] += 1
print(json.dumps(counts))
"""

EXCLUSIVE_WRITER = """
import os, sys, time
from pathlib import Path
from bfrbctl.errors import OutputError
from bfrbctl.artefacts.outputs import Job, open_output
from tests.contents import CONTENT

path, inside, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
entered = 0
while entered < rounds:
    try:
        with open_output(path, Job("dataset", {}), force=True) as output:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            output.publish("a", {"a.json": b"{}"})
            output.finish(CONTENT["dataset"])
            inside.unlink()
            entered += 1
    except OutputError as error:
        assert "is writing into it" in str(error) or "cannot be" in str(error), error
        time.sleep(0.001)
print(entered)
"""


def script(text: str, *words: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-W", "error", "-c", text, *map(str, words)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize("rounds", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_reader_sees_one_state_while_a_writer_replaces_it(
    tmp_path: Path, record_property: Record, rounds: int
) -> None:
    out, stop = tmp_path / "out", tmp_path / "stop"
    readers = [script(READER, out, stop) for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    ended(script(WRITER, out, rounds))
    stop.touch()
    counts: Counter[str] = Counter()
    for reader in readers:
        counts.update(json.loads(ended(reader).splitlines()[-1]))
    assert counts["mixed"] == 0
    assert counts["whole"] > 0
    assert open_folder(out).manifest["seed"] == rounds - 1
    record_property("reads beside a writer", counts["whole"] + counts["refused"])


@pytest.mark.parametrize("rounds", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_no_two_writers_are_ever_inside(tmp_path: Path, record_property: Record, rounds: int) -> None:
    """The lock file itself comes and goes with every run, which is when a lock is easily held twice."""
    writers = [script(EXCLUSIVE_WRITER, tmp_path / "out", tmp_path / "inside", rounds) for _ in range(3)]
    assert [ended(writer) for writer in writers] == [f"{rounds}\n"] * 3
    record_property("writers in turn", 3 * rounds)


@pytest.mark.slow
def test_of_two_runs_into_one_folder_one_is_refused(chain: Path, tmp_path: Path, record_property: Record) -> None:
    for number in range(5):
        out = tmp_path / f"out-{number}"
        line = [sys.executable, "-m", "bfrbctl", *COMMANDS["prepare"].line(chain, out)]
        runs = [subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [run.communicate(timeout=300)[1] for run in runs]
        codes = sorted(run.returncode for run in runs)
        assert codes == [0, 5], said
        refusal = next(text for text in said if text)
        expected = ("is writing into it", "exists already", "an unfinished run is in it")
        assert any(words in refusal for words in expected), refusal
        open_folder(out, "dataset")
    record_property("runs into one folder", 10)
