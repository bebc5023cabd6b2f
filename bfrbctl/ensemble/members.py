"""The members of a blend, or the one that a model is: which can be used, what they are, how they are put together.

A member whose library cannot be imported, or that the caller leaves out, is no error by itself: the weights of the
others are scaled up, and that is logged. A member whose files are damaged always is one.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bfrbctl.arrays.ragged import Float32
from bfrbctl.artefacts.folders import MANIFEST, Folder
from bfrbctl.config import from_mapping
from bfrbctl.ensemble.blending import read_mixtures
from bfrbctl.ensemble.mixing import Mixture
from bfrbctl.errors import ArtefactError, MissingLibraryError, UsageError
from bfrbctl.evaluation.classes import ClassSpace, gesture_space, read_class_space
from bfrbctl.features import FeatureConfig
from bfrbctl.models.interface import Ensemble, model_kind
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.reprs import short_repr
from bfrbctl.schema import SensorLayout, scenarios_of

_log = logging.getLogger("bfrbctl.prediction")


@dataclass(frozen=True)
class Member:
    """One model of a blend, or a model by itself.

    Parameters
    ----------
    name
        How the blend calls it.
    kind
        `lgbm` or `keras`.
    ensemble
        The models of all its folds.
    config
        Which features it was trained on.
    layout
        Which sensors it was trained on.
    needs
        Which parts of a FeatureBatch it reads.
    space
        Its classes: gestures, or joint labels.
    """

    name: str
    kind: str
    ensemble: Ensemble
    config: FeatureConfig
    layout: SensorLayout
    needs: frozenset[str]
    space: ClassSpace

    __repr__ = short_repr

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Give the probability of each of its classes, gestures or joint labels: float32, (n_sequences, n_classes)."""
        return self.ensemble.predict_proba(batch)


def read_layout(content: Mapping[str, Any]) -> SensorLayout:
    """Read which sensors a model or blend was trained on."""
    return SensorLayout(thm=tuple(map(int, content["thm"])), tof=tuple(map(int, content["tof"])))


def kept_members(folder: Folder, without: frozenset[str], *, strict: bool) -> dict[int, str]:
    """Choose the members that can be used and are not left out: number -> name."""
    names = list(map(str, folder.content["members"])) if folder.kind == "blend" else []
    unknown = sorted(without - set(names))
    if unknown:
        there = f"there is {', '.join(names)}" if names else "it is a model by itself"
        raise UsageError(f"--without {unknown[0]}: {folder.path} has no such member", hint=there)
    kept = {}
    for number, name in enumerate(names):
        why = "as asked" if name in without else _unusable(folder.read_json(f"member-{number}.json"))
        if not why:
            kept[number] = name
        elif strict and name not in without:
            raise UsageError(f"{folder.path}: member {name} cannot be used: {why}", hint=f"or say --without {name}")
        else:
            _log.warning("%s: member %s is left out (%s)", folder.path, name, why)
    if names and not kept:
        raise UsageError(f"{folder.path}: no member is left", hint="install what they need, or leave out fewer")
    return kept


def names_left_out(folder: Folder, kept: Mapping[int, str]) -> tuple[str, ...]:
    """Name the members that were not kept."""
    names = folder.content["members"] if folder.kind == "blend" else []
    return tuple(str(name) for number, name in enumerate(names) if number not in kept)


def _unusable(member: Mapping[str, Any]) -> str:
    """Say why a member's library cannot be imported; empty where it can."""
    try:
        model_kind(str(member["content"]["model"]))
    except MissingLibraryError as error:
        return f"{error.what}; {error.hint}"
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"a member's manifest lacks its kind of model ({error})") from error
    return ""


def mixtures_of(folder: Folder, kept: Mapping[int, str]) -> dict[str, Mixture]:
    """Read how the members are put together; without some of them, the weights of the others are scaled up."""
    mixtures = read_mixtures(folder)
    if len(kept) == len(folder.content["members"]):
        return mixtures
    left = {scenario: mixture.only(list(kept)) for scenario, mixture in mixtures.items()}
    scenarios = scenarios_of(folder.content)
    for scenario in scenarios:
        weights = zip(kept.values(), left[scenario].weights, strict=True)
        now = ", ".join(f"{name} {weight:.3f}" for name, weight in weights)
        where = f" (scenario {scenario})" if len(scenarios) > 1 else ""
        _log.warning("%s: weights are now %s%s", folder.path, now, where)
    return left


def member_contents(folder: Folder, kept: Mapping[int, str]) -> list[Mapping[str, Any]]:
    """Give the manifest content of each member that was kept; of a model by itself its own."""
    if folder.kind == "model":
        return [folder.content]
    return [folder.read_json(f"member-{number}.json")["content"] for number in kept]


def predicted_space(folder: Folder, members: Sequence[Member]) -> ClassSpace:
    """Read the gestures of a model or blend, with the joint labels that a blend assigns where a member has them."""
    gestures = gesture_space(folder.content)
    if folder.kind == "model":
        return gestures
    space = read_class_space(folder.content, what=str(folder.path / MANIFEST))
    if not space.is_joint or any(member.space == space for member in members):
        return space
    if len(members) == len(folder.content["members"]):
        raise ArtefactError(f"{folder.path / MANIFEST}: assigns joint labels that no member has")
    _log.warning("%s: no member with joint labels is left, nothing is assigned to wearers", folder.path)
    return gestures


def open_members(folder: Folder, kept: Mapping[int, str]) -> Iterator[Member]:
    """Open the members that were kept, or the one that a model is; ArtefactError when one is damaged."""
    if folder.kind == "model":
        yield _member(folder, folder.path.name, folder.content, prefix="")
        return
    for number, name in kept.items():
        member = folder.read_json(f"member-{number}.json")
        if member["content"]["classes"] != folder.content["classes"]:
            raise ArtefactError(f"{folder.path}: member {name} has other classes than the blend")
        yield _member(folder, name, member["content"], prefix=f"member-{number}.")


def _member(folder: Folder, name: str, content: Mapping[str, Any], *, prefix: str) -> Member:
    kind = model_kind(str(content["model"]))
    space = read_class_space(content, what=str(folder.path / MANIFEST))
    models = []
    for fold in content["folds"]:
        start = f"{prefix}fold-{int(fold)}."
        files = {file[len(start) :]: folder.read(file) for file in folder.files if file.startswith(start)}
        if not files:
            raise ArtefactError(f"{folder.path}: has no model of fold {fold} of {name}")
        try:
            models.append(kind.load(files, classes=space.classes))
        except ArtefactError as error:
            raise ArtefactError(f"{folder.path / start}*: {error.what}", hint=error.hint) from error
    if not models:
        raise ArtefactError(f"{folder.path}: member {name} has no folds")
    known = FeatureConfig.model_fields
    settings = {key: value for key, value in content["features"].items() if key in known}
    config = from_mapping(FeatureConfig, settings, str(folder.path / MANIFEST))
    return Member(name, kind.name, kind.ensemble(models), config, read_layout(content), kind.needs, space)
