"""Scores of labels that were shuffled within each subject: chance, whatever is trained, chosen and blended.

Each test bounds pooled AUC, macro F1 over gestures and the headline score from above; see `shuffled` for the bound.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.ensemble.assignment import assigned, joint_proba
from bfrbctl.ensemble.blending import blend, joint_members
from bfrbctl.ensemble.decoding import RULES
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.evaluation import oof
from bfrbctl.models.interface import model_kind
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from tests.shuffled import ShuffledStudy, chance, features_of, macro_f1, pooled_auc, score

TWO = {"Scratch": True, "Rest": False}
FOUR = {"Cheek - pinch skin": True, "Neck - scratch": True, "Wave hello": False, "Text on phone": False}

TWO_CLASSES = ShuffledStudy(TWO, n_subjects=10, n_each=24, n_folds=10)
FOUR_CLASSES = ShuffledStudy(FOUR, n_subjects=12, n_each=20, n_folds=12, thermopile=True)
LARGER_FOLDS = ShuffledStudy(FOUR, n_subjects=8, n_each=24, n_folds=4)

N_STUDIES = 6
"""Studies of a kind that are averaged: of `TWO_CLASSES`, rounds that a fold's own score chooses exceed the bounds."""

TREES = {"n_rounds": 100, "threads": 1}
NETWORK = {"width": 0.05, "batch_size": 64}


def trained(features: Folder, path: Path, kind: str, *, labels: Any = "gesture", **settings: Any) -> Folder:
    module = model_kind(kind)
    run = CrossValidation(features, module, module.config_class(**settings), labels=labels)
    with open_output(path, Job("model", run.settings, (features.ref(),))) as output:
        for _ in cross_validate(run, output):
            pass
    return open_folder(path, "model")


def blended(members: Sequence[Folder], path: Path, config: BlendConfig) -> Folder:
    refs = tuple(member.ref() for member in members)
    with open_output(path, Job("blend", as_mapping(config), refs)) as output:
        return blend(members, output, config)


def check_chance(folders: Sequence[Folder]) -> None:
    for figure in (pooled_auc, macro_f1, score):
        got = chance([oof.read_oof(folder) for folder in folders], folders[0].content["targets"], figure)
        assert got.found <= got.bound, f"{figure.__name__} of shuffled labels {got.found:.4f}, at most {got.bound:.4f}"


def models(study: ShuffledStudy, path: Path, kind: str, n: int = N_STUDIES, **settings: Any) -> list[Folder]:
    """Train on several studies of a kind."""
    made = [features_of(study, path / f"features-{seed}", seed) for seed in range(n)]
    return [trained(each, path / f"model-{seed}", kind, **settings) for seed, each in enumerate(made)]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> list[Folder]:
    """LightGBM with its defaults but for fewer rounds."""
    return models(TWO_CLASSES, tmp_path_factory.mktemp("trees"), "lgbm", **TREES)


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> list[Folder]:
    """LightGBM with balanced weights and rounds chosen by the log-loss, on the same studies."""
    settings = {**TREES, "class_weight": "balanced", "select_by": "logloss"}
    return models(TWO_CLASSES, tmp_path_factory.mktemp("balanced"), "lgbm", **settings)


def test_trees_score_chance(trees: list[Folder]) -> None:
    check_chance(trees)


def test_balanced_trees_chosen_by_the_log_loss_score_chance(balanced: list[Folder]) -> None:
    check_chance(balanced)


@pytest.mark.parametrize("decode", [*RULES, "auto"])
def test_a_blend_scores_chance(
    trees: list[Folder], balanced: list[Folder], tmp_path: Path, decode: Literal["argmax", "threshold", "auto"]
) -> None:
    config = BlendConfig(decode=decode)
    pairs = enumerate(zip(trees[:3], balanced[:3], strict=True))
    check_chance([blended(pair, tmp_path / f"blend-{number}", config) for number, pair in pairs])


@pytest.mark.slow
@pytest.mark.parametrize("study", [FOUR_CLASSES, LARGER_FOLDS])
@pytest.mark.parametrize("settings", [{}, {"select": "last"}, {"class_weight": "balanced", "select_by": "logloss"}])
def test_trees_on_several_classes_score_chance(study: ShuffledStudy, settings: dict[str, Any], tmp_path: Path) -> None:
    check_chance(models(study, tmp_path, "lgbm", **TREES, **settings))


@pytest.mark.slow
def test_an_assignment_of_joint_labels_scores_chance(tmp_path: Path) -> None:
    studies = []
    for seed in range(N_STUDIES):
        features = features_of(LARGER_FOLDS, tmp_path / f"features-{seed}", seed)
        member = trained(features, tmp_path / f"joint-{seed}", "lgbm", labels="joint", **TREES)
        folder = blended([member], tmp_path / f"blend-{seed}", BlendConfig(assign="causal"))
        joint, conditional = joint_members([member], [oof.read_oof(member)])
        parts = {}
        for scenario, part in oof.read_oof(folder).items():
            decided = assigned(part, joint_proba(part.proba, conditional[scenario], joint), joint, seed=0)
            parts[scenario] = replace(part, decided=decided)
        studies.append(parts)
    for figure in (macro_f1, score):
        got = chance(studies, list(FOUR.values()), figure)
        assert got.found <= got.bound


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "select", "n_studies", "epochs"),
    [("two-branch", "last", 4, 40), ("two-branch", "other-folds", 1, 20), ("helios", "last", 1, 10)],
)
def test_networks_score_chance(network: str, select: str, n_studies: int, epochs: int, tmp_path: Path) -> None:
    settings = {**NETWORK, "network": network, "select": select, "epochs": epochs}
    check_chance(models(TWO_CLASSES, tmp_path, "keras", n=n_studies, **settings))
