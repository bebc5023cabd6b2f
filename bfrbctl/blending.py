"""Blend out-of-fold predictions: a temperature for each member, weights on the simplex, an honest score.

Members are joined by sequence_id. For each scenario, each member gets the temperature that minimises its log-loss, and
the members are averaged with weights that start from the best log-loss and are then searched, without derivatives, for
the competition metric. The score that is told comes from weights and temperatures fitted on the other folds; the
in-sample one stands beside it. Weights that make no difference stay equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import minimize, minimize_scalar

from bfrbctl import oof
from bfrbctl.config import as_mapping
from bfrbctl.errors import ArtefactError, DataError, UsageError, examples
from bfrbctl.folders import Folder
from bfrbctl.metrics import hierarchical_f1, log_loss, score_proba
from bfrbctl.oof import OofScenario
from bfrbctl.outputs import Output
from bfrbctl.schema import GESTURE, SCENARIOS, SEQUENCE_ID, SUBJECT
from bfrbctl.segments import AnyArray, Float32, Float64, Int64
from bfrbctl.storage import Content, encode_json

WEIGHTS = "weights.json"
METRICS = "metrics.json"
_TEMPERATURES = (0.2, 5.0)
_STEPS = (0.2, 0.1, 0.05, 0.02)
_EQUALITY_PULL = 1e-3
_BOOTSTRAPS = 1000


@dataclass(frozen=True)
class BlendConfig:
    """Settings of `oof-blend`.

    Parameters
    ----------
    pooling
        `arithmetic` (weighted mean of probabilities) or `logarithmic` (of their logarithms, normalised).
    epsilon
        Probabilities are floored at this and normalised before they are pooled.
    weights
        `name=value` for every member: fixed weights instead of fitted ones.
    seed
        Seed of the bootstrap.
    """

    pooling: str = "arithmetic"
    epsilon: float = 1e-4
    weights: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in ("arithmetic", "logarithmic"):
            raise UsageError(f"--pooling {self.pooling}: unknown", hint="choose arithmetic or logarithmic")
        if not 0 < self.epsilon < 0.05:
            raise UsageError(f"--epsilon {self.epsilon}: expected a small positive number below 0.05")


@dataclass(frozen=True)
class Mixture:
    """How the members of one scenario are put together.

    Parameters
    ----------
    temperatures, weights
        One a member; weights are at least 0 and sum to 1.
    pooling, epsilon
        As in `BlendConfig`.
    """

    temperatures: tuple[float, ...]
    weights: tuple[float, ...]
    pooling: str
    epsilon: float

    def mix(self, probas: Sequence[AnyArray]) -> Float32:
        """Blend the members' probabilities, each (n_sequences, n_classes), into float32 of that shape."""
        scaled = [temper(p, t, self.epsilon) for p, t in zip(probas, self.temperatures, strict=True)]
        return pool(scaled, self.weights, self.pooling).astype(np.float32)


def temper(proba: AnyArray, temperature: float, epsilon: float) -> Float64:
    """Soften (temperature > 1) or sharpen probabilities, floored at epsilon first; rows sum to 1."""
    logs = np.log(np.maximum(np.asarray(proba, dtype=np.float64), epsilon)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def pool(probas: Sequence[Float64], weights: Sequence[float], pooling: str) -> Float64:
    """Average probabilities, or their logarithms, with weights; rows sum to 1."""
    terms = probas if pooling == "arithmetic" else [np.log(p) for p in probas]
    mixed = np.zeros_like(terms[0])
    for weight, term in zip(weights, terms, strict=True):
        mixed = mixed + weight * term
    if pooling == "logarithmic":
        mixed = np.exp(mixed - mixed.max(axis=1, keepdims=True))
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True))


# --------------------------------------------------------------------------------------------------------- fitting


def fit_mixture(
    probas: Sequence[Float32],
    truth: Int64,
    targets: Sequence[bool],
    config: BlendConfig,
    *,
    fixed: Sequence[float] | None = None,
) -> Mixture:
    """Fit temperatures and weights on out-of-fold predictions of one scenario.

    Parameters
    ----------
    probas
        One a member, float32 (n_sequences, n_classes), rows aligned.
    truth
        int64, (n_sequences,).
    targets
        One flag a class.
    config
        Pooling and floor.
    fixed
        Weights to take as they are.
    """
    temperatures = [fit_temperature(proba, truth, config.epsilon) for proba in probas]
    scaled = [temper(proba, t, config.epsilon) for proba, t in zip(probas, temperatures, strict=True)]
    if fixed is not None:
        weights = np.asarray(fixed, dtype=np.float64)
    elif len(probas) == 1:
        weights = np.ones(1)
    else:
        weights = _search(scaled, truth, targets, config.pooling, start=_by_log_loss(scaled, truth, config.pooling))
    return Mixture(
        tuple(float(t) for t in temperatures), tuple(float(w) for w in weights), config.pooling, config.epsilon
    )


def fit_temperature(proba: AnyArray, truth: Int64, epsilon: float) -> float:
    """Find the temperature (0.2 to 5) with the least log-loss, to four digits."""

    def loss(log_t: float) -> float:
        return log_loss(temper(proba, float(np.exp(log_t)), epsilon), truth)

    bounds = (float(np.log(_TEMPERATURES[0])), float(np.log(_TEMPERATURES[1])))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 4)


def _by_log_loss(scaled: Sequence[Float64], truth: Int64, pooling: str) -> Float64:
    """Weights with the least log-loss, searched from equal ones through a softmax."""

    def weights(free: Float64) -> Float64:
        powers = np.exp(free - free.max())
        return np.asarray(powers / powers.sum())

    def loss(free: Float64) -> float:
        return log_loss(pool(scaled, weights(free).tolist(), pooling), truth) + 1e-4 * float(np.sum(free**2))

    found = minimize(loss, np.zeros(len(scaled)), method="L-BFGS-B", bounds=[(-6.0, 6.0)] * len(scaled))
    return weights(np.asarray(found.x))


def _search(
    scaled: Sequence[Float64], truth: Int64, targets: Sequence[bool], pooling: str, *, start: Float64
) -> Float64:
    """Move weight from one member to another as long as the competition metric gains; ties go to equal weights."""
    n = len(scaled)
    equal = np.full(n, 1.0 / n)

    def value(weights: Float64) -> float:
        predicted = np.argmax(pool(scaled, weights.tolist(), pooling), axis=1).astype(np.int64)
        return hierarchical_f1(truth, predicted, targets).score - _EQUALITY_PULL * float(np.sum((weights - equal) ** 2))

    best, best_value = max(((w, value(w)) for w in (equal, np.round(start, 3))), key=lambda pair: pair[1])
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for giver in range(n):
                for taker in range(n):
                    moved = min(step, float(best[giver]))
                    if giver == taker or moved <= 0:
                        continue
                    candidate = best.copy()
                    candidate[giver] -= moved
                    candidate[taker] += moved
                    candidate_value = value(candidate)
                    if candidate_value > best_value + 1e-9:
                        best, best_value, improved = candidate, candidate_value, True
    return np.asarray(np.round(best / best.sum(), 6))


def nested_proba(
    probas: Sequence[Float32],
    part: OofScenario,
    targets: Sequence[bool],
    config: BlendConfig,
    *,
    fixed: Sequence[float] | None = None,
) -> Float32:
    """Blend each fold with temperatures and weights fitted on the other folds alone: float32, aligned with `part`."""
    folds = part.folds
    out = np.empty_like(probas[0])
    for fold in np.unique(folds):
        held, rest = folds == fold, folds != fold
        fitted = fit_mixture([p[rest] for p in probas], part.truth[rest], targets, config, fixed=fixed)
        out[held] = fitted.mix([p[held] for p in probas])
    return out


def subject_interval(
    proba: AnyArray, part: OofScenario, targets: Sequence[bool], *, seed: int, n_draws: int = _BOOTSTRAPS
) -> tuple[float, float]:
    """95 % bootstrap interval of the competition score, drawing whole subjects with replacement."""
    predicted = np.argmax(proba, axis=1).astype(np.int64)
    subjects, group = np.unique(part.keys[SUBJECT].to_numpy(), return_inverse=True)
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(n_draws):
        times = np.bincount(rng.integers(0, len(subjects), len(subjects)), minlength=len(subjects))
        weights = times[group].astype(np.float64)
        scores.append(hierarchical_f1(part.truth, predicted, targets, weights=weights).score)
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


# ---------------------------------------------------------------------------------------------------- blend folders


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
    """Read the members' out-of-fold predictions and see that they speak of the same thing.

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
        When the members do not fit each other; the first difference is named.
    UsageError
        When fixed weights do not name the members.
    """
    names = member_names(folders)
    tables = aligned_members(folders)
    targets, classes = folders[0].content["targets"], folders[0].content["classes"]
    fixed = _fixed_weights(config, names)
    mixtures: dict[str, Mixture] = {}
    nested: dict[str, OofScenario] = {}
    told: dict[str, Any] = {"optimistic": {}, "interval": {}, "members": {name: {} for name in names}}
    for scenario in SCENARIOS:
        part = tables[0][scenario]
        probas = [table[scenario].proba for table in tables]
        mixtures[scenario] = fit_mixture(probas, part.truth, targets, config, fixed=fixed)
        proba = nested_proba(probas, part, targets, config, fixed=fixed)
        nested[scenario] = OofScenario(part.keys, part.truth, proba)
        told["optimistic"][scenario] = asdict(score_proba(mixtures[scenario].mix(probas), part.truth, targets))
        told["interval"][scenario] = list(subject_interval(proba, part, targets, seed=config.seed))
        for name, member in zip(names, probas, strict=True):
            told["members"][name][scenario] = asdict(score_proba(member, part.truth, targets))
    summary = {**oof.summarise(nested, targets, classes), **told}
    summary["best_member"] = max(names, key=lambda name: _mean_of(told["members"][name]))
    summary["gain"] = summary["score"] - _mean_of(told["members"][summary["best_member"]])
    output.publish("blend", _blend_files(folders, names, mixtures, nested, summary=summary))
    kept = ("rate_hz", "thm", "tof", "classes", "targets", "n_folds", "prior")
    content = {key: folders[0].content[key] for key in kept}
    layout = {key: sorted({n for folder in folders for n in folder.content[key]}) for key in ("thm", "tof")}
    return output.finish({**content, **layout, "members": names, "score": summary["score"]})


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
    nested: Mapping[str, OofScenario],
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
    rows = [oof.oof_rows(part.keys, {scenario: part.proba}) for scenario, part in nested.items()]
    files[oof.OOF] = pl.concat(rows).sort("scenario", SEQUENCE_ID)
    return files


def read_mixtures(folder: Folder) -> dict[str, Mixture]:
    """Read and check the weights of a blend folder.

    Raises
    ------
    ArtefactError
        When they are not one finite temperature above 0 and one weight a member, at least 0, that sum to 1.
    """
    told = folder.read_json(WEIGHTS)
    n_members = len(folder.content["members"])
    found = {}
    for scenario in SCENARIOS:
        try:
            values = told["scenarios"][scenario]
            mixture = Mixture(
                tuple(float(t) for t in values["temperatures"]),
                tuple(float(w) for w in values["weights"]),
                str(values["pooling"]),
                float(values["epsilon"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{folder.path / WEIGHTS}: does not tell the weights of scenario {scenario}") from error
        numbers = np.array([*mixture.temperatures, *mixture.weights, mixture.epsilon])
        sound = (
            len(mixture.temperatures) == len(mixture.weights) == n_members
            and bool(np.all(np.isfinite(numbers)) and np.all(numbers >= 0))
            and min(mixture.temperatures) > 0.01
            and 0 < mixture.epsilon < 0.05
            and abs(sum(mixture.weights) - 1) < 1e-3
            and mixture.pooling in ("arithmetic", "logarithmic")
        )
        if not sound:
            raise ArtefactError(f"{folder.path / WEIGHTS}: weights or temperatures of scenario {scenario} cannot be")
        found[scenario] = mixture
    return found
