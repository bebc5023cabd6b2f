import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.errors import ArtefactError
from bfrbctl.models.lightgbm import text as lightgbm_text
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.library import lgb, silence
from bfrbctl.models.lightgbm.text import MAX_BYTES, MAX_LEAVES, Trees, checked, first_rounds, trimmed

N_FEATURES = 6
N_CLASSES = 3
KEYS = tuple(field[0] for field in lightgbm_text._TREE[1:])
HEADER_KEYS = ("version", *lightgbm_text._HEADER)
TOKENS = (
    "",
    "0",
    "-1",
    "1",
    "2",
    "5",
    "-9",
    "99",
    "4294967296",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "1.5",
    "0x1",
    "1_0",
    "é",
)


@cache
def table() -> np.ndarray:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(150, N_FEATURES)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    return values


@cache
def whole_text() -> str:
    """A text as LightGBM writes it, with splits on missing values and a class that never occurs."""
    silence()
    labels = np.random.default_rng(4).integers(0, 2, 150)
    params = {**Config(num_leaves=5, min_data_in_leaf=5).lightgbm(), "num_class": N_CLASSES, "num_threads": 1}
    return lgb.train(params, lgb.Dataset(table(), labels, params=params), 3).model_to_string()


def sound() -> str:
    return trimmed(whole_text())


def check(text: str | bytes) -> Trees:
    data = text if isinstance(text, bytes) else text.encode()
    return checked(data, n_features=N_FEATURES, n_classes=N_CLASSES)


def resized(text: str) -> str:
    """Let tree_sizes agree with the trees again, so that a mutation meets the checks behind it."""
    head, *trees = text.partition("\nend of trees\n")[0].split("\nTree=")
    sizes = [len(f"Tree={tree}\n".encode()) for tree in trees]
    lines = [
        f"tree_sizes={' '.join(map(str, sizes))}" if line.startswith("tree_sizes") else line
        for line in head.split("\n")
    ]
    return "\n".join(lines) + "".join(f"\nTree={tree}" for tree in trees) + "\nend of trees\n"


def with_token(text: str, key: str, place: int, token: str) -> str:
    """Replace one number of one field; place counts the numbers of that field over all trees."""
    lines = text.split("\n")
    found = [
        (row, column)
        for row, line in enumerate(lines)
        if line.startswith(f"{key}=")
        for column in range(len(line.split("=", 1)[1].split(" ")))
    ]
    row, column = found[place % len(found)]
    values = lines[row].split("=", 1)[1].split(" ")
    values[column] = token
    lines[row] = f"{key}={' '.join(values)}"
    return "\n".join(lines)


def predicts(text: str) -> bool:
    booster = lgb.Booster(model_str=text)
    proba = booster.predict(table(), num_threads=1)
    return proba.shape == (150, N_CLASSES) and bool(np.isfinite(proba).all())


def test_a_text_of_lightgbm_passes_and_tells_its_size() -> None:
    trees = check(sound())
    importance = lgb.Booster(model_str=whole_text()).feature_importance("split")
    assert trees.n_rounds == 3
    assert np.bincount(trees.split_feature, minlength=N_FEATURES).tolist() == importance.tolist()
    assert (trees.split_gain > 0).all()


def test_a_trimmed_text_predicts_the_same() -> None:
    whole = lgb.Booster(model_str=whole_text()).predict(table())
    assert np.array_equal(lgb.Booster(model_str=sound()).predict(table()), whole)
    assert "num_threads" in whole_text()
    assert "num_threads" not in sound()


def test_a_text_of_a_random_forest_passes() -> None:
    silence()
    params = {"objective": "multiclass", "num_class": N_CLASSES, "boosting": "rf", "bagging_freq": 1, "verbosity": -1}
    data = lgb.Dataset(table(), np.random.default_rng(4).integers(0, 3, 150))
    booster = lgb.train({**params, "bagging_fraction": 0.5}, data, 3)
    assert check(trimmed(booster.model_to_string())).n_rounds == 3


def test_resizing_a_sound_text_changes_nothing() -> None:
    assert resized(sound()) == sound()


@pytest.mark.parametrize(
    ("key", "token", "match"),
    [
        ("left_child", "4", "has the child 4"),
        ("left_child", "-6", "has the child -6"),
        ("right_child", "2147483648", "has the child 2147483648"),
        ("right_child", "0", "has the child 0"),
        ("left_child", "99999999999999999999999", "left_child"),
        ("split_feature", "6", r"split_feature: 6 is not in 0\.\.5"),
        ("split_feature", "-1", "split_feature"),
        ("num_leaves", "6", "expected 5"),
        ("num_leaves", "0", "num_leaves: 0 is not in"),
        ("num_leaves", str(MAX_LEAVES + 1), "num_leaves"),
        ("num_leaves", "-5", "num_leaves: -5 is not in"),
        ("num_cat", "1", "num_cat"),
        ("decision_type", "1", "decision_type"),
        ("decision_type", "14", "decision_type"),
        ("decision_type", "266", "decision_type"),
        ("leaf_value", "nan", "leaf_value"),
        ("leaf_value", "inf", "leaf_value"),
        ("leaf_value", "1e400", "leaf_value: a number that is not finite"),
        ("leaf_value", "1e31", "leaf_value"),
        ("leaf_value", "--1", "leaf_value"),
        ("leaf_value", "", "leaf_value"),
        ("leaf_value", "1 2", "numbers of leaf_value, expected"),
        ("threshold", "nan", "threshold"),
        ("leaf_count", "-1", "leaf_count"),
        ("internal_count", "-1", "internal_count"),
        ("split_gain", "inf", "split_gain"),
        ("is_linear", "1", "is_linear"),
        ("shrinkage", "nan", "shrinkage"),
        ("Tree", "7", "not numbered in order"),
    ],
)
def test_a_damaged_tree_is_refused(key: str, token: str, match: str) -> None:
    with pytest.raises(ArtefactError, match=match):
        check(resized(with_token(sound(), key, 0, token)))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("tree\n", "forest\n", "does not begin"),
        ("version=v4", "version=v5", "version v4"),
        ("num_class=3", "num_class=300000000", "num_class"),
        ("num_tree_per_iteration=3", "num_tree_per_iteration=1", "num_tree_per_iteration"),
        ("label_index=0", "label_index=-1", "label_index"),
        ("max_feature_idx=5", "max_feature_idx=6", "max_feature_idx"),
        ("objective=multiclass num_class:3", "objective=multiclass num_class:2", "objective"),
        ("Column_3", "Column_4", "feature_names"),
        ("feature_infos=[", "feature_infos=none [", "feature_infos"),
        ("feature_infos=[", "feature_infos=(", "feature_infos"),
        ("\nTree=0\n", "Tree=0\n", "no blank line"),
        ("\nTree=1\n", "x\nTree=1\n", "text between two trees"),
        ("threshold=", "treshold=", "'threshold=' was expected"),
        ("end of trees\n", "", "does not end"),
        ("end of trees\n", "end of trees\nparameters:\n", "does not end"),
        ("end of trees\n", "end of trees", "does not end"),
        ("label_index=0\n", "", "'label_index=' was expected"),
    ],
)
def test_a_damaged_layout_is_refused(old: str, new: str, match: str) -> None:
    assert old in sound()
    with pytest.raises(ArtefactError, match=match):
        check(sound().replace(old, new, 1))


def test_wrong_tree_sizes_are_refused() -> None:
    first = int(sound().partition("tree_sizes=")[2].split(" ")[0])
    with pytest.raises(ArtefactError, match="tree 0: its size is not what tree_sizes says"):
        check(with_token(sound(), "tree_sizes", 0, str(first + 1)))
    with pytest.raises(ArtefactError, match="8 trees, expected a multiple of 3"):
        check(sound().replace(f"tree_sizes={first} ", "tree_sizes=", 1))
    with pytest.raises(ArtefactError, match="0 trees"):
        check(sound().replace(sound().partition("tree_sizes=")[2].partition("\n")[0], "", 1))


def test_a_node_with_two_parents_is_refused() -> None:
    # the root of the first tree points to node 1 from both sides
    text = with_token(with_token(sound(), "left_child", 0, "1"), "right_child", 0, "1")
    with pytest.raises(ArtefactError, match="tree 0: the child 1 has two parents"):
        check(resized(text))


def test_a_node_above_its_parent_is_refused() -> None:
    lines = sound().split("\n")
    row = next(i for i, line in enumerate(lines) if line.startswith("left_child="))
    lines[row] = "left_child=" + " ".join(["0"] * len(lines[row].split()))
    with pytest.raises(ArtefactError, match="tree 0: node 0 has the child 0"):
        check(resized("\n".join(lines)))


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(ArtefactError, match="not ASCII"):
        check(b"tree\nversion=v4\n\xff")
    with pytest.raises(ArtefactError, match="expected at most"):
        check(bytes(MAX_BYTES + 1))
    with pytest.raises(ArtefactError, match="does not begin"):
        check(b"")


@given(st.data())
@settings(max_examples=150, deadline=None, database=None)
def test_changed_bytes_never_reach_the_library_unless_harmless(data: st.DataObject) -> None:
    content = bytearray(sound().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.sampled_from(b"0123456789-+.einf= \n\0\xffCT"))
    try:
        check(bytes(content))
    except ArtefactError:
        return
    assert predicts(content.decode("ascii"))


@given(st.sampled_from(KEYS), st.integers(0, 200), st.sampled_from(TOKENS), st.booleans())
@settings(max_examples=150, deadline=None, database=None)
def test_changed_fields_never_reach_the_library_unless_harmless(key: str, place: int, token: str, resize: bool) -> None:
    text = with_token(sound(), key, place, token)
    text = resized(text) if resize else text
    try:
        check(text)
    except ArtefactError:
        return
    assert predicts(text)


@given(st.integers(0), st.integers(0), st.sampled_from(["drop", "double", "swap", "cut"]))
@settings(max_examples=100, deadline=None, database=None)
def test_changed_lines_are_refused(first: int, second: int, how: str) -> None:
    lines = sound().split("\n")
    one, two = first % len(lines), second % len(lines)
    if how == "drop":
        del lines[one]
    elif how == "double":
        lines.insert(one, lines[one])
    elif how == "swap":
        lines[one], lines[two] = lines[two], lines[one]
    else:
        del lines[one:]
    text = "\n".join(lines)
    if text == sound():
        return
    try:
        check(text)
    except ArtefactError:
        return
    assert how == "swap"  # two lines of the same field and length, changed between two trees
    assert predicts(text)


FUZZ = """
import random, sys
sys.path.insert(0, {folder!r})
import test_lightgbm_text as t
rng = random.Random({seed})
refused = 0
for _ in range(3000):
    text = t.mutant(rng)
    try:
        t.check(text)
    except t.ArtefactError:
        refused += 1
    else:
        assert t.predicts(text), text
print(refused)
"""


def mutant(rng: random.Random) -> str:
    """A text with one to three changes of any sort, half of them with tree sizes that agree."""
    text = sound()
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.6:
            text = with_token(
                text, rng.choice(KEYS), rng.randrange(300), rng.choice([*TOKENS, str(rng.randint(-6, 6))])
            )
        elif rng.random() < 0.5:
            place = rng.randrange(len(text))
            text = text[:place] + rng.choice("0123456789-e. \n") + text[place + rng.randint(0, 2) :]
        else:
            text = with_token(text, rng.choice(HEADER_KEYS), rng.randrange(30), rng.choice(TOKENS))
    return resized(text) if rng.random() < 0.5 else text


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_mutant_crashes_a_process(seed: int) -> None:
    code = FUZZ.format(folder=str(Path(__file__).parent), seed=seed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1500


# the first rounds of a text

ROUNDS = 7
BOOSTINGS = {
    "gbdt": Config(num_leaves=5, min_data_in_leaf=5),
    "random forest": Config(num_leaves=5, bagging_freq=1, bagging_fraction=0.6, params={"boosting": "rf"}),
    "extra trees": Config(num_leaves=5, min_data_in_leaf=5, extra_trees=True, feature_fraction=0.5),
    "trees of one leaf": Config(num_leaves=5, min_data_in_leaf=5, min_gain_to_split=3.0),
    "goss": Config(num_leaves=4, params={"data_sample_strategy": "goss"}),
}


@cache
def boosted(name: str) -> lgb.Booster:
    silence()
    labels = np.random.default_rng(4).permutation(np.repeat(np.arange(N_CLASSES), (100, 40, 10)))
    params = {**BOOSTINGS[name].lightgbm(), "num_class": N_CLASSES, "num_threads": 1}
    return lgb.train(params, lgb.Dataset(table(), labels, params=params), ROUNDS, keep_training_booster=True)


@pytest.mark.parametrize("name", BOOSTINGS)
def test_the_first_rounds_are_what_lightgbm_writes_of_them(name: str) -> None:
    booster = boosted(name)
    whole = trimmed(booster.model_to_string(num_iteration=-1)).encode("ascii")
    for n_rounds in range(1, ROUNDS + 3):
        expected = trimmed(booster.model_to_string(num_iteration=n_rounds)).encode("ascii")
        cut = first_rounds(whole, n_rounds, n_classes=N_CLASSES)
        assert cut == expected
        found = checked(cut, n_features=N_FEATURES, n_classes=N_CLASSES)
        assert found.n_rounds == min(n_rounds, booster.current_iteration())
        loaded = lgb.Booster(model_str=cut.decode("ascii"))
        assert np.array_equal(loaded.predict(table()), booster.predict(table(), num_iteration=n_rounds))


def test_random_forests_and_trees_of_one_leaf_are_among_them() -> None:
    assert b"\naverage_output\n" in trimmed(boosted("random forest").model_to_string()).encode("ascii")
    assert "num_leaves=1\n" in boosted("trees of one leaf").model_to_string(num_iteration=-1)


def test_a_text_of_fewer_rounds_stays_as_it_is() -> None:
    whole = sound().encode("ascii")
    assert first_rounds(whole, 3, n_classes=N_CLASSES) is whole
    assert first_rounds(whole, 10**9, n_classes=N_CLASSES) is whole
