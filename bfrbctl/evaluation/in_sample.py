"""What a model was trained on, kept in its folder as digests: to mark a score on the same recordings as in-sample.

A digest stands for a subject, or for a sequence: its subject, its id and its number of frames. No name is kept. Names
can be guessed, though: a reader of the folder who knows a name can check whether it was used, as with `oof.parquet`,
which names all sequences.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from bfrbctl.errors import ArtefactError
from bfrbctl.reprs import written
from bfrbctl.schema import SEQUENCE_ID, SUBJECT

TRAINED_ON = "trained_on"
"""The optional key of a model's content."""

_DIGITS = 16
"""Hexadecimal digits of a digest: among a million sequences two share one with a probability of 3e-8."""


@dataclass(frozen=True)
class TrainedOn:
    """Digests of the sequences and subjects that a model, or any member of a blend, learned from or was chosen by."""

    sequences: frozenset[str]
    subjects: frozenset[str]

    def __repr__(self) -> str:
        """Count them: a digest says nothing to a reader."""
        return written("TrainedOn", {"n_sequences": len(self.sequences), "n_subjects": len(self.subjects)})

    def has_sequence(self, subject: str | None, sequence_id: str, n_frames: int) -> bool:
        """Whether training used this sequence."""
        return _sequence_digest(subject, sequence_id, n_frames) in self.sequences

    def has_subject(self, subject: str | None) -> bool:
        """Whether training used a sequence of this subject; never so of an unknown one."""
        return bool(subject) and _digest(str(subject)) in self.subjects


def training_digests(index: pl.DataFrame) -> dict[str, str]:
    """Give the digests of the sequences that a model is trained on, those that choose the number of steps included.

    Parameters
    ----------
    index
        sequence_id, subject and n_frames of all labelled sequences.

    Returns
    -------
    `sequences` and `subjects`: digests of 16 hexadecimal digits, sorted, without anything between.
    """
    rows = index.select(SUBJECT, SEQUENCE_ID, "n_frames").iter_rows()
    subjects = (str(subject) for subject in index[SUBJECT].unique().to_list() if subject)
    return {"sequences": _joined(_sequence_digest(*row) for row in rows), "subjects": _joined(map(_digest, subjects))}


def read_trained_on(contents: Sequence[Mapping[str, Any]], what: str) -> TrainedOn | None:
    """Put together what the members of a blend, or the one model, were trained on.

    Parameters
    ----------
    contents
        The content of each member's manifest.
    what
        Names the manifest in a message.

    Returns
    -------
    None when one of them has no digests, as those of earlier versions.

    Raises
    ------
    ArtefactError
        When an entry is not a text of digests.
    """
    if any(TRAINED_ON not in content for content in contents):
        return None
    found: dict[str, set[str]] = {"sequences": set(), "subjects": set()}
    for content in contents:
        entry = content[TRAINED_ON]
        for key, digests in found.items():
            text = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(text, str) or len(text) % _DIGITS or not re.fullmatch(r"[0-9a-f]*", text):
                raise ArtefactError(f"{what}: {TRAINED_ON} has no digests of {key}", hint="make the folder again")
            digests.update(text[place : place + _DIGITS] for place in range(0, len(text), _DIGITS))
    return TrainedOn(frozenset(found["sequences"]), frozenset(found["subjects"]))


def _joined(digests: Iterable[str]) -> str:
    return "".join(sorted(digests))


def _sequence_digest(subject: str | None, sequence_id: str, n_frames: int) -> str:
    return _digest("\0".join((subject or "", sequence_id, str(n_frames))))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
