"""What an interrupted run left: its settings, its finished parts, and the versions of the libraries that made them."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bfrbctl.artefacts.files import MAX_JSON_BYTES, FileEntry, parse_json, read_regular
from bfrbctl.artefacts.folders import (
    ALONGSIDE,
    JOURNAL,
    MANIFEST,
    PACK,
    SEAL,
    continue_command,
    file_name,
    read_journal,
)
from bfrbctl.errors import ArtefactError, OutputError, examples

_LIBRARIES = ("numpy", "polars", "pyarrow", "scipy", "scikit-learn", "lightgbm", "tensorflow", "keras")
_OF_MODELS = {"lightgbm": "lgbm", "tensorflow": "keras", "keras": "keras"}
"""Libraries that decide what one kind of model holds, and nothing else."""

Parts = Mapping[str, Mapping[str, FileEntry]]


@dataclass(frozen=True)
class Journal:
    """What the journal of a folder holds.

    Parameters
    ----------
    kind
        Kind of the folder to be.
    config, seed
        Settings of the run.
    options
        What else was given that the result depends on, by option.
    n_inputs
        How many folders or files the run reads.
    command
        The command line that began the run; empty where that is not known.
    libraries
        Versions of the libraries that made what is finished; None in journals of earlier versions.
    content
        What is known already of what the manifest will hold.
    planned
        The parts that there will be, where that is known.
    parts
        The finished ones: part -> its files.
    raw
        The journal as it was read.
    """

    kind: str
    config: Mapping[str, Any]
    seed: int | None
    options: Mapping[str, Any]
    n_inputs: int
    command: tuple[str, ...]
    libraries: Mapping[str, str] | None
    content: Mapping[str, Any]
    planned: tuple[str, ...]
    parts: Parts
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def continue_command(self) -> str:
        """The command that continues the run."""
        return continue_command(self.raw)


NO_JOURNAL = Journal("", {}, None, {}, 0, (), None, {}, (), {}, {})
"""Stands for the journal where there is no run to continue."""


def open_journal(path: Path) -> Journal:
    """Read and check the journal of a folder; ArtefactError when it is missing, damaged or strange."""
    raw = read_journal(path)
    what = path / JOURNAL

    def take(key: str, kind: type[Any], default: Any = None) -> Any:
        value = raw.get(key, default)
        if not isinstance(value, kind):
            raise ArtefactError(f"{what}: {key!r} is missing or not a {kind.__name__}")
        return value

    try:
        parts = {
            str(part): {
                name if name in ALONGSIDE else file_name(name, JOURNAL): FileEntry(**entry)
                for name, entry in files.items()
            }
            for part, files in take("pieces", dict).items()
        }
    except (AttributeError, TypeError) as error:
        raise ArtefactError(f"{what}: its finished parts cannot be read ({error})") from error
    seed = raw.get("seed")
    return Journal(
        kind=take("kind", str),
        config=take("config", dict),
        seed=seed if isinstance(seed, int) else None,
        options=take("options", dict, {}),
        n_inputs=len(take("inputs", list)),
        command=tuple(map(str, take("command", list, []))),
        libraries=take("libraries", dict) if "libraries" in raw else None,
        content=take("content", dict, {}),
        planned=tuple(map(str, take("planned", list, []))),
        parts=parts,
        raw=raw,
    )


def refuse_other_run(path: Path, journal: Journal, identity: Mapping[str, Any], *, again: str) -> None:
    """Refuse to continue an unfinished run that is another one than this (OutputError).

    Parameters
    ----------
    path
        The folder.
    journal
        Of the unfinished run.
    identity
        What must be equal for this run to continue it; JSON values.
    again
        What to do instead, for the hint.
    """
    before = {key: journal.raw.get(key) for key in identity}
    if before != identity:
        given = all(before[key] == identity[key] for key in identity if key not in ("config", "seed"))
        advice = (
            "leave these out, --resume goes on with the settings of that run" if given else "run it with those again"
        )
        lines = list(dict.fromkeys(differences(before, identity)))  # a seed is in the settings as well
        raise OutputError(
            f"{path}: the unfinished run in it differs in {examples(lines)}",
            hint=f"{advice}; or {again}",
        )


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Say in which settings, or other parts of their identity, two runs differ, one line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [
            key for key in sorted(set(old) | set(new)) if key not in ("pieces", SEAL) and old.get(key) != new.get(key)
        ]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{prefix}{key}.")]
    if isinstance(old, list) and isinstance(new, list) and prefix == "inputs.":
        return ["the input (it is another one, or its content changed)"]
    name = prefix.rstrip(".").removeprefix("config.").removeprefix("settings.")  # as the user gave it
    return [f"{name} ({old!r} then, {new!r} now)"]


def interrupted_run(path: Path, kind: str, *, resume: bool) -> Journal:
    """Read the journal of the run that `--resume` continues, so that its settings need not be given again.

    `NO_JOURNAL` where nothing is to be continued, or nothing of this kind; `open_output` then says what is wrong.
    """
    if not resume or not (path / JOURNAL).is_file():
        return NO_JOURNAL
    try:
        journal = open_journal(path)
    except ArtefactError:
        return NO_JOURNAL
    return journal if journal.kind == kind else NO_JOURNAL


def kind_there(path: Path) -> str | None:
    """Read which kind of folder there is, finished or not, as `kind_name` has it; None where that is damaged."""
    if (path / PACK).exists() and (path / MANIFEST).exists():
        return "pack"
    name = MANIFEST if (path / MANIFEST).exists() else JOURNAL
    try:
        found = parse_json(read_regular(path / name, limit=MAX_JSON_BYTES), str(path / name))
    except ArtefactError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        return None
    config = found.get("config")
    return kind_name(found["kind"], config if isinstance(config, dict) else {})


def kind_name(kind: str, config: Mapping[str, Any]) -> str:
    """Name a kind of folder; of models also which sort it is, since trees are no version of a network.

    >>> kind_name("model", {"model": "lgbm"}), kind_name("dataset", {})
    ('lgbm model', 'dataset')
    """
    return f"{config['model']} model" if kind == "model" and isinstance(config.get("model"), str) else kind


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on, without importing them."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def deciding_libraries(kind: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Versions of the libraries that decide the bytes of a folder: those of models only where such models are used."""
    model = config.get("model")
    return {
        name: found
        for name, found in library_versions().items()
        if kind == "predictions" or _OF_MODELS.get(name) in (None, model)
    }


def comparable_version(name: str, found: str | None) -> str:
    """Write a version for comparison: of Python only 3.N counts.

    >>> comparable_version("python", "3.12.4"), comparable_version("numpy", None)
    ('3.12', 'not installed')
    """
    if found is None:
        return "not installed"
    return ".".join(found.split(".")[:2]) if name == "python" else found


def version_differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Name the libraries whose versions differ, with both of them."""
    pairs = ((name, comparable_version(name, then.get(name)), comparable_version(name, now[name])) for name in now)
    return [f"{name} ({before} then, {after} now)" for name, before, after in pairs if before != after]
