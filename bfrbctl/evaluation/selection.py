"""Choose how many steps (rounds, epochs) to keep, so that no fold's held-out sequences decide its own score.

Each fold is trained to the end and its held-out sequences are scored after every step. A fold is scored with the number
of steps that is best on the mean curve of the *other* folds; the models that are kept for prediction have the number
that is best on the mean curve of all folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bfrbctl.arrays.ragged import Float64
from bfrbctl.errors import ArtefactError, examples
from bfrbctl.reprs import short_repr

Select = Literal["other-folds", "last"]
By = Literal["score", "logloss"]
Scenario = Literal["mean", "all", "imu"]


@dataclass(frozen=True)
class Curve:
    """Figures of a fold's held-out sequences after every step.

    Parameters
    ----------
    score, logloss
        Scenario -> float64, (n_steps,): the headline score, and the log-loss in nats; one scenario, `all`, where there
        is nothing to take away.
    """

    score: Mapping[str, Float64]
    logloss: Mapping[str, Float64]

    __repr__ = short_repr

    @property
    def n_steps(self) -> int:
        """How many steps were scored."""
        return len(next(iter(self.score.values())))

    def as_content(self) -> dict[str, dict[str, list[float]]]:
        """Give it as JSON values."""
        figures = (("score", self.score), ("logloss", self.logloss))
        return {name: {scenario: each.tolist() for scenario, each in values.items()} for name, values in figures}

    @classmethod
    def of_content(cls, content: Any, *, what: str) -> "Curve":
        """Read what `as_content` gave.

        Raises
        ------
        ArtefactError
            When it is something else.
        """
        try:
            parts = [
                {str(scenario): np.array(values, dtype=np.float64) for scenario, values in content[name].items()}
                for name in ("score", "logloss")
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtefactError(f"{what}: holds no curve of scores", hint="train again with --force") from error
        figures = [values for part in parts for values in part.values()]
        shapes = {values.shape for values in figures}
        of_steps = len(shapes) == 1 and len(next(iter(shapes))) == 1 and shapes != {(0,)}
        if (
            not of_steps
            or parts[0].keys() != parts[1].keys()
            or not all(np.isfinite(values).all() for values in figures)
        ):
            raise ArtefactError(f"{what}: holds no curve of scores", hint="train again with --force")
        return cls(*parts)


@dataclass(frozen=True)
class Rule:
    """What makes one step better than another.

    Parameters
    ----------
    by
        `score` (the headline score; a score is a count and often ties, and the lower log-loss decides then) or
        `logloss`.
    scenario
        Whose figure: `all`, `imu`, or the `mean` of both.
    """

    by: By = "score"
    scenario: Scenario = "mean"


@dataclass(frozen=True)
class Selected:
    """How many steps are kept.

    Parameters
    ----------
    folds
        Fold -> steps of the model that its held-out sequences are scored with.
    kept
        Steps of the models that are kept for prediction.
    """

    folds: Mapping[int, int]
    kept: int


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average curves step by step.

    Raises
    ------
    ArtefactError
        When they are not of the same steps and scenarios.
    """
    kinds = {(curve.n_steps, tuple(sorted(curve.score))) for curve in curves}
    if len(kinds) > 1:
        found = examples([f"{n_steps} steps ({', '.join(scenarios)})" for n_steps, scenarios in sorted(kinds)])
        raise ArtefactError(
            f"the folds have curves of {found}, expected the same steps and scenarios in each",
            hint="train again with --force",
        )
    return Curve(
        *(
            {scenario: np.mean([getattr(curve, name)[scenario] for curve in curves], axis=0) for scenario in first}
            for name, first in (("score", curves[0].score), ("logloss", curves[0].logloss))
        )
    )


def best_step(curve: Curve, rule: Rule) -> int:
    """Give the best number of steps, from 1; of equals the one with the lowest log-loss, of these the fewest.

    Examples
    --------
    >>> curve = Curve({"all": np.array([0.5, 0.7, 0.69])}, {"all": np.array([1.0, 0.9, 0.8])})
    >>> best_step(curve, Rule()), best_step(curve, Rule("logloss"))
    (2, 3)
    """
    wanted = [rule.scenario] if rule.scenario in curve.score else list(curve.score)
    loss = np.mean([curve.logloss[scenario] for scenario in wanted], axis=0)
    if rule.by == "logloss":
        return int(np.argmin(loss)) + 1
    score = np.mean([curve.score[scenario] for scenario in wanted], axis=0)
    return int(np.argmin(np.where(score == score.max(), loss, np.inf))) + 1


def select_steps(curves: Mapping[int, Curve], rule: Rule) -> Selected:
    """Choose for each fold by the curves of the others, and for the models that are kept by all.

    Parameters
    ----------
    curves
        Fold -> its curve; two folds at least.
    rule
        What makes a step better.
    """
    if len(curves) < 2:
        raise ValueError(f"{len(curves)} folds, expected two at least: a fold must not choose for itself")
    others = {fold: [curve for other, curve in curves.items() if other != fold] for fold in curves}
    folds = {fold: best_step(mean_curve(rest), rule) for fold, rest in others.items()}
    return Selected(folds, best_step(mean_curve(list(curves.values())), rule))
