"""Folds: which part of the data is held out when, by subject, balanced over gestures."""

import warnings
from collections import Counter
from collections.abc import Sequence
from importlib import import_module

import numpy as np

from bfrbctl.arrays.ragged import Int64
from bfrbctl.errors import DataError


def assign_folds(gestures: Sequence[str], subjects: Sequence[str], *, n_folds: int, seed: int) -> Int64:
    """Give each sequence the fold that holds it out.

    A subject is in one fold only, and gestures are distributed as evenly as that allows (scikit-learn's
    StratifiedGroupKFold). Subjects are numbered by name, so that the row order does not matter.

    Parameters
    ----------
    gestures, subjects
        One a sequence.
    n_folds
        How many folds, at least 2.
    seed
        Shuffles the subjects.

    Returns
    -------
    int64, (n_sequences,): 0..n_folds-1.

    Raises
    ------
    DataError
        When there are fewer subjects than folds.
    """
    names = sorted(set(subjects))
    if len(names) < n_folds:
        raise DataError(
            f"{len(names)} subjects cannot be split into {n_folds} folds, which hold out whole subjects",
            hint=f"ask for fewer folds: --folds {max(len(names), 2)}"
            if len(names) >= 2
            else "cross-validation needs two subjects at least; prepare without labels, or record more subjects",
        )
    groups = np.searchsorted(np.array(names), np.array(subjects))
    # Loaded here: it takes longer than all else that preparing and predicting load, and only labelled data needs it.
    splitter = import_module("sklearn.model_selection").StratifiedGroupKFold(
        n_splits=n_folds, shuffle=True, random_state=seed
    )
    folds = np.full(len(subjects), -1, dtype=np.int64)
    kinds = np.unique(np.array(gestures), return_inverse=True)[1]
    if np.bincount(kinds).max() < n_folds:
        kinds = np.zeros_like(kinds)  # too few of every gesture to stratify: balance the number of sequences
    with warnings.catch_warnings():
        # A gesture with fewer sequences than folds is no reason to stop: it is simply absent from some folds.
        warnings.filterwarnings("ignore", message="The least populated class in y")
        for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(subjects)), kinds, groups)):
            folds[held_out] = number
    return folds


def extend_folds(
    gestures: Sequence[str],
    subjects: Sequence[str],
    *,
    before: Sequence[tuple[str, int]],
    n_folds: int,
    seed: int,
) -> Int64:
    """Give more sequences their folds, beside those that have one.

    A subject who has a fold keeps it. New subjects are distributed like those of a new dataset where there are as many
    of them as folds; else each of them, the one with most sequences first, goes to the fold with the fewest sequences.

    Parameters
    ----------
    gestures, subjects
        One a new sequence.
    before
        Subject and fold of every labelled sequence that there is already.
    n_folds
        How many folds there are.
    seed
        Shuffles the new subjects.

    Returns
    -------
    int64, (n_sequences,): 0..n_folds-1.
    """
    if not before:
        return assign_folds(gestures, subjects, n_folds=n_folds, seed=seed)
    known = dict(before)
    new = [place for place, subject in enumerate(subjects) if subject not in known]
    counts = Counter(subjects[place] for place in new)
    if len(counts) >= n_folds:
        there = [gestures[place] for place in new], [subjects[place] for place in new]
        found = assign_folds(*there, n_folds=n_folds, seed=seed)
        known |= {subjects[place]: int(fold) for place, fold in zip(new, found, strict=True)}
    else:
        sizes = np.bincount([fold for _, fold in before], minlength=n_folds)
        for subject, n_sequences in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            known[subject] = int(np.argmin(sizes))
            sizes[known[subject]] += n_sequences
    return np.array([known[subject] for subject in subjects], dtype=np.int64)
