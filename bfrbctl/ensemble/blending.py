"""Blend folders: members joined by sequence_id, weights fitted on their out-of-fold predictions, an honest score.

The score comes from weights, temperatures and thresholds fitted, and a decoding rule chosen, on the other
folds - on other subjects where there is one fold only; the in-sample one stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Float32
from bfrbctl.artefacts.files import Content, encode_json
from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Output
from bfrbctl.config import as_mapping
from bfrbctl.ensemble.assignment import joint_proba, score_orders
from bfrbctl.ensemble.decoding import RULES, decide
from bfrbctl.ensemble.fitting import fit_mixture
from bfrbctl.ensemble.mixing import BlendConfig, Mixture
from bfrbctl.ensemble.nesting import MIN_AUTO_GROUPS, nested, nesting_groups
from bfrbctl.errors import ArtefactError, DataError, UsageError, examples
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import auc_intervals, score_intervals
from bfrbctl.evaluation.classes import ClassSpace, gesture_space, read_class_space
from bfrbctl.evaluation.labels import JOINT_OOF
from bfrbctl.evaluation.metrics import hierarchical_f1, score_proba, score_values
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.reprs import short_repr
from bfrbctl.schema import GESTURE, SCENARIOS, SEQUENCE_ID, SUBJECT

WEIGHTS = "weights.json"
METRICS = "metrics.json"
FOLDS, SUBJECTS = "folds", "groups of subjects"


def member_names(folders: Sequence[Folder]) -> list[str]:
    """Name members by their folders; equal names get a number."""
    names: list[str] = []
    for folder in folders:
        name, number = folder.path.resolve().name, 1
        while name in names:
            number += 1
            name = f"{folder.path.resolve().name}-{number}"
        names.append(name)
    return names


def aligned_members(folders: Sequence[Folder]) -> list[dict[str, OofScenario]]:
    """Read the members' out-of-fold predictions and check that they are of the same sequences and classes.

    Raises
    ------
    DataError
        Naming the first difference in classes, targets, sequences, gestures, subjects or folds.
    """
    first = folders[0]
    tables = [oof.read_oof(folder) for folder in folders]
    for folder, table in zip(folders[1:], tables[1:], strict=True):
        for key in ("classes", "targets", "rate_hz"):
            if folder.content[key] != first.content[key]:
                raise _differ(first, folder, f"{key}: {_first_difference(first.content[key], folder.content[key])}")
        ours, theirs = tables[0][SCENARIOS[0]].keys, table[SCENARIOS[0]].keys
        lacking = sorted(set(ours[SEQUENCE_ID]) ^ set(theirs[SEQUENCE_ID]))
        if lacking:
            raise _differ(first, folder, f"sequence {examples(lacking)} is in one of them only")
        for column in (GESTURE, SUBJECT, "fold"):
            at = ours[column].ne_missing(theirs[column]).arg_true()
            if len(at):
                row = int(at[0])
                raise _differ(
                    first,
                    folder,
                    f"{column} of sequence {ours[SEQUENCE_ID][row]}: {ours[column][row]} and {theirs[column][row]} "
                    f"({len(at)} sequences differ)",
                )
    return tables


def _differ(first: Folder, other: Folder, what: str) -> DataError:
    return DataError(
        f"{first.path} and {other.path} differ in {what}",
        hint="blend models trained on the same dataset with the same folds",
    )


def _first_difference(ours: Any, theirs: Any) -> str:
    if isinstance(ours, list) and isinstance(theirs, list):
        for number, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b:
                return f"{a!r} and {b!r} at place {number}"
        return f"{len(ours)} and {len(theirs)} of them"
    return f"{ours!r} and {theirs!r}"


def blend(folders: Sequence[Folder], output: Output, config: BlendConfig) -> Folder:
    """Fit a blend and write it with copies of its members, so that it travels alone.

    Parameters
    ----------
    folders
        Model folders; one is enough (its temperature is fitted).
    output
        The blend folder, opened by `outputs.open_output`.
    config
        Settings.

    Raises
    ------
    DataError
        When the members do not fit each other; the first difference is named. When one fold with one subject is all
        that they were trained on.
    UsageError
        When fixed weights do not name the members, or an assignment is asked for and no member has joint labels.
    """
    names, tables, space = member_names(folders), aligned_members(folders), gesture_space(folders[0].content)
    fixed, nesting = _fixed_weights(config, names), _nesting(tables[0][SCENARIOS[0]])
    joint, conditional = joint_members(folders, tables) if config.assign == "causal" else (space, {})
    fits = {
        scenario: _fit_scenario([table[scenario] for table in tables], space.targets, config, fixed=fixed)
        for scenario in SCENARIOS
    }
    nested_parts = {scenario: fit.nested for scenario, fit in fits.items()}
    summary: dict[str, Any] = {
        **oof.summarise(nested_parts, space),
        "optimistic": {scenario: fit.optimistic for scenario, fit in fits.items()},
        "rules": {scenario: fit.rules for scenario, fit in fits.items()},
        "assignment": _assignment_scores(nested_parts, joint, conditional, seed=config.seed),
        "members": {name: _member_scores(table, space.targets) for name, table in zip(names, tables, strict=True)},
        "interval": score_intervals(nested_parts, space, seed=config.seed),
        "auc_interval": auc_intervals(nested_parts, space, seed=config.seed),
        "nesting": nesting,
    }
    _add_gains(summary)
    mixtures = {scenario: fit.mixture for scenario, fit in fits.items()}
    output.publish("blend", _blend_files(folders, names, mixtures, nested_parts, summary=summary))
    assignment = {**joint.joint_content(), "assign": config.assign} if joint.is_joint else {}
    return output.finish({**_shared_content(folders), **assignment, "members": names, "score": summary["score"]})


def _shared_content(folders: Sequence[Folder]) -> dict[str, Any]:
    """Give the content that the members have in common, and the sensors that any of them uses."""
    kept = ("rate_hz", "thm", "tof", "classes", "targets", "n_folds", "prior")
    content = {key: folders[0].content[key] for key in kept}
    return content | {key: sorted({n for folder in folders for n in folder.content[key]}) for key in ("thm", "tof")}


def _member_scores(table: Mapping[str, OofScenario], targets: Sequence[bool]) -> dict[str, dict[str, float | None]]:
    return {
        scenario: score_values(score_proba(table[scenario].proba, table[scenario].truth, targets), targets)
        for scenario in SCENARIOS
    }


def _assignment_scores(
    parts: Mapping[str, OofScenario], joint: ClassSpace, conditional: Mapping[str, Float32], *, seed: int
) -> dict[str, Any]:
    """Score the assignment of joint labels in each scenario, over orders of arrival; empty without joint labels."""
    found = {}
    for scenario, part in parts.items() if joint.is_joint else ():
        orders = score_orders(part, joint_proba(part.proba, conditional[scenario], joint), joint, seed=seed)
        found[scenario] = {
            "orders": [score_values(score, joint.targets) for score in orders],
            "score": float(np.mean([score.score for score in orders])),
        }
    return found


def _add_gains(summary: dict[str, Any]) -> None:
    """Add what the blend gains over its best member, and the assignment over the blend.

    The best member is chosen by the rows that it is scored on, the blend by others: the gain is rather too small.
    """
    means = {name: _mean_of(scores) for name, scores in summary["members"].items()}
    summary["best_member"] = max(means, key=lambda name: means[name])
    summary["gain"] = summary["score"] - means[summary["best_member"]]
    assignment = summary["assignment"]
    if assignment:
        assignment["score"] = _mean_of(assignment)
        assignment["gain"] = assignment["score"] - summary["score"]


def _nesting(part: OofScenario) -> dict[str, Any]:
    """Describe what the score is nested over: folds, or groups of the subjects of the one fold that was trained."""
    groups = len(np.unique(nesting_groups(part)))
    return {"over": FOLDS if len(np.unique(part.folds)) > 1 else SUBJECTS, "groups": groups}


def notes_of(metrics: Mapping[str, Any]) -> list[str]:
    """Say what limits the score of a blend."""
    return [note for note in (nesting_note(metrics), decoding_note(metrics)) if note]


def nesting_note(metrics: Mapping[str, Any]) -> str | None:
    """Say where the score of a blend is not nested over folds; None where it is."""
    nesting = metrics.get("nesting")
    if not isinstance(nesting, Mapping) or nesting.get("over") != SUBJECTS:
        return None
    return (
        f"the members were trained with one fold: the score is nested over {nesting.get('groups')} groups of its "
        "subjects, and is of this fold alone"
    )


def decoding_note(metrics: Mapping[str, Any]) -> str | None:
    """Say where `auto` had too few groups to choose a decoding rule by; None where it had enough."""
    rules, nesting = metrics.get("rules"), metrics.get("nesting")
    if not isinstance(rules, Mapping) or not isinstance(nesting, Mapping):
        return None
    asked = [each.get("asked") for each in rules.values() if isinstance(each, Mapping)]
    groups = nesting.get("groups")
    if "auto" not in asked or not isinstance(groups, int) or groups >= MIN_AUTO_GROUPS:
        return None
    return (
        f"the score is nested over {groups} groups, which leaves none to choose the decoding rule by: auto is argmax; "
        "--decode threshold takes the other rule"
    )


@dataclass(frozen=True)
class _ScenarioFit:
    """The blend of one scenario.

    Parameters
    ----------
    nested
        Predictions by what was fitted and chosen on the other groups.
    mixture
        Fitted on all groups, for new recordings.
    rules
        The scores of the decoding rules, and what was chosen.
    optimistic
        The score of `mixture` on the rows that it was fitted on.
    """

    nested: OofScenario
    mixture: Mixture
    rules: Mapping[str, Any]
    optimistic: Mapping[str, float | None]

    __repr__ = short_repr


def _fit_scenario(
    members: Sequence[OofScenario], targets: Sequence[bool], config: BlendConfig, *, fixed: Sequence[float] | None
) -> _ScenarioFit:
    probas, part = [member.proba for member in members], members[0]
    held_out = nested(probas, part, targets, config, fixed=fixed)
    rule = held_out.kept_rule(part.truth, targets, config)
    mixture = fit_mixture(probas, part.truth, targets, config, fixed=fixed)
    rules = {
        "asked": config.decode,
        "chosen": rule,
        "threshold": mixture.threshold,
        "scores": {each: hierarchical_f1(part.truth, held_out.predicted[each], targets).score for each in RULES},
        "by_group": {str(group): each for group, each in held_out.rules.items()},
    }
    kept = mixture if rule == "threshold" else replace(mixture, threshold=None)
    in_sample = hierarchical_f1(part.truth, decide(kept.mix(probas), targets, kept.threshold), targets)
    return _ScenarioFit(
        nested=OofScenario(part.keys, part.truth, held_out.proba, held_out.decided),
        mixture=kept,
        rules=rules,
        optimistic=score_values(in_sample, targets),
    )


def joint_members(
    folders: Sequence[Folder], tables: Sequence[Mapping[str, OofScenario]]
) -> tuple[ClassSpace, dict[str, Float32]]:
    """Give the classes of the members with joint labels, and, by scenario, P(joint label | gesture) out of fold.

    The mean over those members: float32, (n_sequences, n_joint), rows as in `tables`.

    Raises
    ------
    UsageError
        When no member has joint labels.
    DataError
        When two members have different ones.
    """
    found = [(folder, read_class_space(folder.content, what=str(folder.path))) for folder in folders]
    having = [(folder, space) for folder, space in found if space.is_joint]
    if not having:
        raise UsageError(
            "--assign causal: no member has joint labels", hint="train one with bfrbctl train lgbm --labels joint"
        )
    first, joint = having[0]
    parts: dict[str, list[Float32]] = {scenario: [] for scenario in SCENARIOS}
    for folder, own in having:
        if own != joint:
            raise _differ(first, folder, "joint labels")
        table = folder.read_parquet(JOINT_OOF)
        for scenario in SCENARIOS:
            rows = table.filter(pl.col("scenario") == scenario).sort(SEQUENCE_ID)
            if not rows[SEQUENCE_ID].equals(tables[0][scenario].keys[SEQUENCE_ID]):
                raise ArtefactError(f"{folder.path / JOINT_OOF}: its sequences are not those of {oof.OOF}")
            parts[scenario].append(joint.conditional(rows.select(oof.proba_columns(len(joint.classes))).to_numpy()))
    return joint, {scenario: np.mean(values, axis=0, dtype=np.float32) for scenario, values in parts.items()}


def _mean_of(scores: Mapping[str, Mapping[str, float]]) -> float:
    return oof.mean_score([scores[scenario]["score"] for scenario in SCENARIOS])


def _fixed_weights(config: BlendConfig, names: Sequence[str]) -> list[float] | None:
    if not config.weights:
        return None
    given: dict[str, float] = {}
    for text in config.weights:
        name, _, value = text.partition("=")
        try:
            given[name] = float(value)
        except ValueError as error:
            raise UsageError(f"--weights {text}: expected name=number") from error
    sound = all(np.isfinite(value) and value >= 0 for value in given.values()) and sum(given.values()) > 0
    if set(given) != set(names) or not sound:
        raise UsageError(
            f"--weights {','.join(config.weights)}: expected a weight, 0 or more, for each of {', '.join(names)}",
            hint=f"for example --weights {','.join(f'{name}={1 / len(names):.2g}' for name in names)}",
        )
    total = sum(given.values())
    return [given[name] / total for name in names]


def _blend_files(
    folders: Sequence[Folder],
    names: Sequence[str],
    mixtures: Mapping[str, Mixture],
    nested_parts: Mapping[str, OofScenario],
    *,
    summary: Mapping[str, Any],
) -> dict[str, Content]:
    files: dict[str, Content] = {}
    for number, folder in enumerate(folders):
        for name in folder.names(r"fold-\d+\..+|importance\.parquet|history\.jsonl|oof\.parquet"):
            files[f"member-{number}.{name}"] = folder.read(name)
        member = {"name": names[number], "sha256": folder.sha256, "config": folder.config, "content": folder.content}
        files[f"member-{number}.json"] = encode_json(member)
    weights = {
        "members": list(names),
        "scenarios": {scenario: as_mapping(mixture) for scenario, mixture in mixtures.items()},
    }
    files[WEIGHTS] = encode_json(weights)
    files[METRICS] = encode_json(summary)
    classes = np.array(folders[0].content["classes"])
    rows = [
        oof.oof_rows(part.keys, {scenario: part.proba}).with_columns(
            pl.Series(oof.DECIDED, classes[part.predicted], dtype=pl.String)
        )
        for scenario, part in nested_parts.items()
    ]
    files[oof.OOF] = pl.concat(rows).sort("scenario", SEQUENCE_ID)
    return files


def read_mixtures(folder: Folder) -> dict[str, Mixture]:
    """Read and check the weights of a blend folder.

    Raises
    ------
    ArtefactError
        When they are not one finite temperature above 0 and one weight a member, at least 0, that sum to 1.
    """
    weights = folder.read_json(WEIGHTS)
    n_members = len(folder.content["members"])
    found = {}
    for scenario in SCENARIOS:
        try:
            values = weights["scenarios"][scenario]
            mixture = Mixture(
                tuple(float(t) for t in values["temperatures"]),
                tuple(float(w) for w in values["weights"]),
                str(values["pooling"]),
                float(values["epsilon"]),
                None if values.get("threshold") is None else float(values["threshold"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{folder.path / WEIGHTS}: has no sound weights of scenario {scenario}") from error
        numbers = np.array([*mixture.temperatures, *mixture.weights, mixture.epsilon])
        sound = (
            len(mixture.temperatures) == len(mixture.weights) == n_members
            and bool(np.all(np.isfinite(numbers)) and np.all(numbers >= 0))
            and min(mixture.temperatures) > 0.01
            and 0 < mixture.epsilon < 0.05
            and abs(sum(mixture.weights) - 1) < 1e-3
            and (mixture.threshold is None or 0 < mixture.threshold < 1)
            and mixture.pooling in ("arithmetic", "logarithmic")
        )
        if not sound:
            raise ArtefactError(
                f"{folder.path / WEIGHTS}: weights or temperatures of scenario {scenario} are out of range"
            )
        found[scenario] = mixture
    return found
