"""Check LightGBM model text before the library sees it.

LightGBM trusts its own files: a child index beyond the tree or a wrong tree size makes it read foreign memory, and the
process dies. So text is read here first, by a grammar that allows exactly what `trimmed` leaves of a text that LightGBM
wrote: a header, blocks of 19 lines, and the end mark. Every number is parsed, every index is checked, every node but
the root has exactly one parent that comes before it (hence no cycles), and the sizes agree.

Because a block has a fixed number of lines, a field of all trees is one slice of the list of lines; the checks work on
these slices, not tree by tree, so that a model of thousands of trees is checked in a fraction of a second.

Source of the layout: https://github.com/lightgbm-org/LightGBM, src/boosting/gbdt_model_text.cpp and src/io/tree.cpp.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float64, Int64, offsets_of, segment_ids
from bfrbctl.errors import ArtefactError
from bfrbctl.reprs import short_repr

MAX_BYTES = 1 << 28
"""Largest text that is parsed at all; a model of the study is 2 to 20 MB."""

MAX_LEAVES = 4096
"""Largest tree. It bounds the depth too, and with it the recursion in the library."""

MAX_LEAF_VALUE = 1e30
"""Largest size of a leaf's value, so that no sum of leaves can overflow."""

VERSION = "v4"
END = "end of trees"

_HEADER = (
    "num_class",
    "num_tree_per_iteration",
    "label_index",
    "max_feature_idx",
    "objective",
    "feature_names",
    "feature_infos",
    "tree_sizes",
)
_INNER = "inner nodes"
_LEAVES = "leaves"
_LEAVES_OR_NONE = "leaves, or nothing for a single one"
_ONE = "one"

_INTEGER = re.compile(r"[0-9 -]*")
_FINITE = re.compile(r"[0-9e .+-]*")
_NUMBER = re.compile(r"[0-9e .+inf-]*")  # a split of missing against known values has the threshold inf

_TREE: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("Tree", _INTEGER, _ONE),
    ("num_leaves", _INTEGER, _ONE),
    ("num_cat", _INTEGER, _ONE),
    ("split_feature", _INTEGER, _INNER),
    ("split_gain", _FINITE, _INNER),
    ("threshold", _NUMBER, _INNER),
    ("decision_type", _INTEGER, _INNER),
    ("left_child", _INTEGER, _INNER),
    ("right_child", _INTEGER, _INNER),
    ("leaf_value", _FINITE, _LEAVES),
    ("leaf_weight", _FINITE, _LEAVES_OR_NONE),
    ("leaf_count", _INTEGER, _LEAVES),
    ("internal_value", _FINITE, _INNER),
    ("internal_weight", _FINITE, _INNER),
    ("internal_count", _INTEGER, _INNER),
    ("is_linear", _INTEGER, _ONE),
    ("shrinkage", _FINITE, _ONE),
)
_BLANKS = 2
_BLOCK = len(_TREE) + _BLANKS

_INFO = re.compile(r"none|\[[0-9e.+-]+:[0-9e.+-]+\]")
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Trees:
    """What a sound text holds.

    Parameters
    ----------
    n_rounds
        Boosting rounds: trees a class.
    n_leaves
        Leaves in all.
    split_feature
        int64, (n_splits,): the column of every split of all trees, in order.
    split_gain
        float64, (n_splits,): what each split gained, in the unit of the loss.
    """

    n_rounds: int
    n_leaves: int
    split_feature: Int64
    split_gain: Float64

    __repr__ = short_repr


def trimmed(text: str) -> str:
    r"""Leave out what prediction does not need: constraints, and all behind the last tree, such as the parameters.

    The library reads a text without them, and the text of a model no longer depends on how it was trained in time.

    >>> trimmed("tree\n\nend of trees\n\nparameters:\n[num_threads: 2]\n")
    'tree\n\nend of trees\n'
    """
    header, blank, trees = text.partition("\n\n")
    kept = [line for line in header.split("\n") if not line.startswith("monotone_constraints=")]
    return "\n".join(kept) + (blank + trees).partition(f"\n{END}\n")[0] + f"\n{END}\n"


def first_rounds(data: bytes, n_rounds: int, *, n_classes: int) -> bytes:
    """Cut a text that `checked` let pass to its first rounds: what LightGBM would have written of these alone.

    Parameters
    ----------
    data
        The text.
    n_rounds
        Rounds to keep; a text of fewer stays as it is.
    n_classes
        Trees of a round.
    """
    lines = data.decode("ascii").split("\n")
    _, start = _header(lines, "the text")
    n_trees = n_rounds * n_classes
    sizes = lines[start - 2].removeprefix("tree_sizes=").split(" ")
    if len(sizes) <= n_trees:
        return data
    head = [*lines[: start - 2], f"tree_sizes={' '.join(sizes[:n_trees])}", ""]
    return "\n".join([*head, *lines[start : start + _BLOCK * n_trees], END, ""]).encode("ascii")


def checked(data: bytes, *, n_features: int, n_classes: int, name: str = "lgbm.txt") -> Trees:
    """Check a model text from end to end.

    Parameters
    ----------
    data
        The text, as `trimmed` leaves it.
    n_features, n_classes
        How many columns and classes it must be about.
    name
        What to call it in an error.

    Raises
    ------
    ArtefactError
        When anything in it is not as LightGBM would have written it.
    """
    if len(data) > MAX_BYTES:
        _refuse(name, f"{len(data):,} bytes, expected at most {MAX_BYTES:,}")
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        _refuse(name, f"byte {error.start} is not ASCII")
    header, start = _header(lines, name)
    sizes = _check_header(header, n_features, n_classes, name)
    if sizes.size == 0 or sizes.size % n_classes:
        _refuse(name, f"{sizes.size} trees, expected a multiple of {n_classes} classes")
    if len(lines) != start + _BLOCK * sizes.size + 2 or lines[-2:] != [END, ""]:
        _refuse(name, f"it does not end after {sizes.size} trees as its header says")
    return _check_trees(_Blocks(lines[start:-2], int(sizes.size), name), sizes, n_features, n_classes)


class _Blocks:
    """The lines of all trees, read field by field."""

    def __init__(self, lines: Sequence[str], n_trees: int, name: str) -> None:
        self.lines = lines
        self.n_trees = n_trees
        self.name = name
        for blank in range(len(_TREE), _BLOCK):
            if any(lines[blank::_BLOCK]):
                _refuse(name, "text between two trees")

    def values(self, position: int) -> list[str]:
        """Give what follows `key=` in every tree."""
        key = f"{_TREE[position][0]}="
        lines = self.lines[position::_BLOCK]
        for tree, line in enumerate(lines):
            if not line.startswith(key):
                _refuse(self.name, f"tree {tree}: {line[:40]!r} where {key!r} was expected")
        return [line[len(key) :] for line in lines]

    def array(self, position: int, counts: Int64) -> AnyArray:
        """Parse a field of all trees, counts[i] numbers from tree i, one after the other."""
        key, _, which = _TREE[position]
        values = self.values(position)
        found = np.array([value.count(" ") + 1 if value else 0 for value in values], dtype=np.int64)
        wrong = found != counts
        if which == _LEAVES_OR_NONE:
            wrong &= (found != 0) | (counts != 1)
        if wrong.any():
            tree = int(np.argmax(wrong))
            _refuse(self.name, f"tree {tree}: {found[tree]} numbers of {key}, expected {counts[tree]}")
        return _numbers(" ".join(value for value in values if value), _TREE[position][1], f"{self.name}: {key}")

    def sizes(self) -> Int64:
        """Bytes of every tree."""
        lengths = np.array([len(line) + 1 for line in self.lines], dtype=np.int64)
        return np.asarray(lengths.reshape(self.n_trees, _BLOCK).sum(axis=1), dtype=np.int64)


def _header(lines: list[str], name: str) -> tuple[dict[str, str], int]:
    """Split the header into its fields, and tell where the trees begin."""
    if lines[:2] != ["tree", f"version={VERSION}"]:
        _refuse(name, f"it does not begin as a LightGBM text of version {VERSION}")
    fields: dict[str, str] = {}
    position = 2
    for key in _HEADER:
        if key == "feature_names" and lines[position : position + 1] == ["average_output"]:
            position += 1  # random forests say so
        line = lines[position] if position < len(lines) else ""
        if not line.startswith(f"{key}="):
            _refuse(name, f"{line[:40]!r} where '{key}=' was expected")
        fields[key] = line[len(key) + 1 :]
        position += 1
    if lines[position : position + 1] != [""]:
        _refuse(name, "no blank line after the header")
    return fields, position + 1


def _check_header(fields: dict[str, str], n_features: int, n_classes: int, name: str) -> Int64:
    """Compare the header with what is known; gives the tree sizes."""
    expected = {
        "num_class": str(n_classes),
        "num_tree_per_iteration": str(n_classes),
        "label_index": "0",
        "max_feature_idx": str(n_features - 1),
        "objective": f"multiclass num_class:{n_classes}",
    }
    for key, value in expected.items():
        if fields[key] != value:
            _refuse(name, f"{key} is {fields[key][:40]!r}, expected {value!r}")
    if fields["feature_names"] != " ".join(f"Column_{i}" for i in range(n_features)):
        _refuse(name, f"feature_names are not Column_0 to Column_{n_features - 1}")
    infos = fields["feature_infos"].split(" ")
    if len(infos) != n_features or not all(map(_INFO.fullmatch, infos)):
        _refuse(name, f"feature_infos are not {n_features} ranges")
    sizes = _numbers(fields["tree_sizes"], _INTEGER, f"{name}: tree_sizes")
    return np.asarray(sizes, dtype=np.int64)


def _check_trees(blocks: _Blocks, sizes: Int64, n_features: int, n_classes: int) -> Trees:
    name = blocks.name
    one = np.ones(blocks.n_trees, dtype=np.int64)
    leaves = np.asarray(blocks.array(1, one), dtype=np.int64)
    _within(leaves, 1, MAX_LEAVES, f"{name}: num_leaves")
    counts = {_ONE: one, _INNER: leaves - 1, _LEAVES: leaves, _LEAVES_OR_NONE: leaves}
    fields = {key: blocks.array(i, counts[which]) for i, (key, _, which) in enumerate(_TREE)}
    if (blocks.sizes() != sizes).any():
        _refuse(name, f"tree {int(np.argmax(blocks.sizes() != sizes))}: its size is not what tree_sizes says")
    if (fields["Tree"] != np.arange(blocks.n_trees)).any():
        _refuse(name, "the trees are not numbered in order")
    _within(fields["num_cat"], 0, 0, f"{name}: num_cat")
    _within(fields["is_linear"], 0, 0, f"{name}: is_linear")
    _within(fields["split_feature"], 0, n_features - 1, f"{name}: split_feature")
    _within(fields["leaf_value"], -MAX_LEAF_VALUE, MAX_LEAF_VALUE, f"{name}: leaf_value")
    _within(fields["leaf_count"], 0, _INT32, f"{name}: leaf_count")
    _within(fields["internal_count"], 0, _INT32, f"{name}: internal_count")
    # bit 0 categorical (never here), bit 1 default left, bits 2-3 what counts as missing: nothing, zero, NaN
    if not np.isin(fields["decision_type"], (0, 2, 4, 6, 8, 10)).all():
        _refuse(name, "a decision_type that is not one of a numerical split")
    _check_children(fields["left_child"], fields["right_child"], leaves, name)
    return Trees(
        n_rounds=blocks.n_trees // n_classes,
        n_leaves=int(leaves.sum()),
        split_feature=np.asarray(fields["split_feature"], dtype=np.int64),
        split_gain=np.asarray(fields["split_gain"], dtype=np.float64),
    )


def _check_children(left: Int64, right: Int64, leaves: Int64, name: str) -> None:
    """Check that every tree is one: each node but the root has one parent, which comes before it."""
    trees = segment_ids(offsets_of(leaves - 1))
    nodes = np.arange(left.size, dtype=np.int64) - offsets_of(leaves - 1)[trees]  # place inside the own tree
    children, parents, owners = np.concatenate([left, right]), np.tile(nodes, 2), np.tile(trees, 2)
    inner = children >= 0
    bad = np.where(inner, (children <= parents) | (children >= leaves[owners] - 1), ~children >= leaves[owners])
    if bad.any():
        first = int(np.argmax(bad))
        _refuse(name, f"tree {owners[first]}: node {parents[first]} has the child {children[first]}")
    # the children of one tree, shifted so that no two trees share a number: leaves first, then inner nodes
    base = offsets_of(2 * leaves)[owners]
    shifted = base + np.where(inner, leaves[owners] + children, ~children)
    twice = np.bincount(shifted)[shifted] > 1
    if twice.any():
        first = int(np.argmax(twice))
        _refuse(name, f"tree {owners[first]}: the child {children[first]} has two parents")


def _numbers(text: str, allowed: re.Pattern[str], what: str) -> AnyArray:
    """Parse numbers with one space between two; int64 or float64."""
    if not allowed.fullmatch(text):
        raise ArtefactError(f"{what}: a character that none of its numbers has", hint=_HINT)
    kind, dtype = (int, np.int64) if allowed is _INTEGER else (float, np.float64)
    try:
        array = np.array([kind(token) for token in text.split(" ")] if text else [], dtype=dtype)
    except (ValueError, OverflowError) as error:
        raise ArtefactError(f"{what}: {error}", hint=_HINT) from None
    if allowed is _FINITE and not np.isfinite(array).all():
        raise ArtefactError(f"{what}: a number that is not finite", hint=_HINT)
    return array


def _within(values: AnyArray, low: float, high: float, what: str) -> None:
    bad = (values < low) | (values > high)
    if bad.any():
        raise ArtefactError(f"{what}: {values[bad][0]} is not in {low:g}..{high:g}", hint=_HINT)


_HINT = "the model is damaged or was edited; copy it again or train it anew"


def _refuse(name: str, what: str) -> NoReturn:
    raise ArtefactError(f"{name}: {what}", hint=_HINT)
