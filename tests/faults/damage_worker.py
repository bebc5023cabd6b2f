"""Take damaged files one after the other: python -m tests.faults.damage_worker BASE TARGET FIRST LAST.

A line before each case and one after it show the parent where this process was when it died.
"""

import json
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np

from bfrbctl.errors import BfrbError
from tests.faults.targets import LIE, RAW, TARGETS, Target, damaged

MEMORY = 2 << 30


def main(base: Path, name: str, first: int, last: int) -> None:
    """Run the cases first..last-1 of a target."""
    warnings.simplefilter("ignore")
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as work:
        for lent in ("data", "raw", "lgbm"):
            (Path(work) / ("sound" if lent == "lgbm" else lent)).symlink_to(base / lent)
        expected = undamaged(target, base, Path(work))
        memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        for number in range(first, last):
            print(json.dumps({"begin": number}), flush=True)
            begin = time.process_time()
            outcome = one(
                target, np.random.default_rng([zlib.crc32(name.encode()), number]), base, Path(work), expected
            )
            result = {"end": number, "outcome": outcome, "seconds": time.process_time() - begin}
            print(json.dumps(result), flush=True)


def undamaged(target: Target, base: Path, work: Path) -> bytes:
    """What comes of the folder as it is."""
    with tempfile.TemporaryDirectory(dir=work) as inner:
        place = Path(inner)
        lend(work, place)
        path = place / target.folder
        if path.is_symlink():
            path.unlink()
        shutil.copytree(base / target.folder, path)
        return target.use(path)


def lend(work: Path, place: Path) -> None:
    """Put the sound folders beside the damaged one."""
    for lent in ("data", "raw", "sound"):
        (place / lent).symlink_to((work / lent).resolve())


def one(target: Target, rng: np.random.Generator, base: Path, work: Path, expected: bytes) -> str:
    """Damage and read once: `refused`, `same`, `other` (only where this cannot be known), or what went wrong."""
    with tempfile.TemporaryDirectory(dir=work) as inner:
        place = Path(inner)
        lend(work, place)
        (place / target.folder).unlink(missing_ok=True)
        path = damaged(target, rng, base, place)
        try:
            found = target.use(path)
        except BfrbError as error:
            return "refused" if str(error).strip() else "wrong: an empty message"
        except BaseException as error:
            return f"wrong: {type(error).__name__}: {str(error)[:200]} in {where(error)}"
        if found == expected:
            return "same"
        return "other" if target.trust in (LIE, RAW) else "wrong: a silently different result"


def where(error: BaseException) -> str:
    """Name the last lines of this package before an error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "bfrbctl/" in frame.filename]
    lines = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-2:]]
    return " > ".join(lines) or "the harness"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
