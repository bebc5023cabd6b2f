"""Hyper-parameters of the LightGBM member, checked when they are set.

The parameters that matter have a field of their own; every other parameter of LightGBM can be given in `params`. What
would break what we promise (the objective, the seeds, determinism, files) is refused with a reason.
"""

import difflib
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, SkipValidation, field_validator, model_validator

from bfrbctl.config import Settings, expected
from bfrbctl.errors import UsageError
from bfrbctl.evaluation.selection import By, Rule, Scenario, Select
from bfrbctl.models.lightgbm.library import lgb, parameter_names, silence
from bfrbctl.models.lightgbm.text import MAX_LEAVES

_INT32 = 2**31 - 1
_NO_PATIENCE = "n_rounds, how long training is: every fold is trained to its end, and select says what is kept"

Value = str | int | float | bool | list[float] | tuple[float, ...]
"""A list stands for a value a feature; LightGBM wants them joined by commas."""

SHARED = (
    "learning_rate",
    "num_leaves",
    "max_depth",
    "min_data_in_leaf",
    "min_sum_hessian_in_leaf",
    "feature_fraction",
    "bagging_fraction",
    "bagging_freq",
    "lambda_l1",
    "lambda_l2",
    "min_gain_to_split",
    "path_smooth",
    "extra_trees",
    "max_bin",
    "min_data_in_bin",
)
"""Fields of `Config` that carry the name, and the meaning, of a LightGBM parameter."""

RENAMED = MappingProxyType(
    {
        "num_iterations": "n_rounds",
        "num_threads": "threads",
        "metric": "select_by",
        "first_metric_only": "select_by",
        "is_unbalance": "class_weight",
        "scale_pos_weight": "class_weight",
        "metric_freq": "log_every",
        "use_quantized_grad": "quantized",
    }
)
"""LightGBM parameters that a field of another name stands for."""

_SEEDS = "all seeds are drawn from the seed of the run"
_FIXED = "it is fixed, so that members can be blended and runs repeated"
_FILES = "training reads and writes no files of LightGBM"
_PREDICTION = "it is about prediction, which is the same for every model"

REFUSED = MappingProxyType(
    {
        **dict.fromkeys(("seed", "data_random_seed", "feature_fraction_seed", "bagging_seed", "extra_seed"), _SEEDS),
        **dict.fromkeys(("drop_seed", "objective_seed"), _SEEDS),
        **dict.fromkeys(("objective", "num_class", "deterministic", "force_col_wise", "force_row_wise"), _FIXED),
        **dict.fromkeys(("task", "verbosity", "tree_learner", "is_provide_training_metric"), _FIXED),
        **dict.fromkeys(("num_machines", "local_listen_port", "machine_list_filename", "machines"), _FIXED),
        **dict.fromkeys(("config", "data", "valid", "input_model", "output_model", "output_result"), _FILES),
        **dict.fromkeys(("save_binary", "snapshot_freq", "convert_model", "convert_model_language"), _FILES),
        **dict.fromkeys(("forcedsplits_filename", "forcedbins_filename", "parser_config_file"), _FILES),
        **dict.fromkeys(("header", "label_column", "weight_column", "group_column", "ignore_column"), _FILES),
        **dict.fromkeys(("two_round", "pre_partition", "precise_float_parser"), _FILES),
        **dict.fromkeys(("saved_feature_importance_type",), _FILES),
        **dict.fromkeys(("start_iteration_predict", "num_iteration_predict", "predict_raw_score"), _PREDICTION),
        **dict.fromkeys(("predict_leaf_index", "predict_contrib", "predict_disable_shape_check"), _PREDICTION),
        **dict.fromkeys(("pred_early_stop", "pred_early_stop_freq", "pred_early_stop_margin"), _PREDICTION),
        "early_stopping_round": "every fold is trained for n_rounds, and `select` says how many are kept",
        "categorical_feature": "every feature is a number",
        "linear_tree": "model files hold trees with constant leaves only",
    }
)
"""LightGBM parameters that cannot be set, and why."""

BY_FEATURE = frozenset(
    {
        "monotone_constraints",
        "feature_contri",
        "max_bin_by_feature",
        "interaction_constraints",
        "cegb_penalty_feature_lazy",
        "cegb_penalty_feature_coupled",
    }
)
"""LightGBM parameters with a value a feature: only the data shows whether they fit."""


class Config(Settings):
    """Hyper-parameters of one training; the defaults are tuned (see docs/lightgbm.md)."""

    learning_rate: float = Field(default=0.1, ge=1e-6, le=10.0, description="Factor on the values of every tree")
    num_leaves: int = Field(default=15, ge=2, le=MAX_LEAVES, description="Most leaves of a tree")
    max_depth: int = Field(
        default=-1, ge=-1, le=MAX_LEAVES, description="Most splits from root to leaf; -1 for any number"
    )
    min_data_in_leaf: int = Field(default=20, ge=0, le=_INT32, description="Fewest sequences in a leaf")
    min_sum_hessian_in_leaf: float = Field(
        default=1e-3, ge=0.0, le=1e30, description="Smallest sum of second derivatives in a leaf"
    )
    feature_fraction: float = Field(
        default=0.1, ge=1e-6, le=1.0, description="Share of the features that each tree may use"
    )
    bagging_fraction: float = Field(
        default=1.0, ge=1e-6, le=1.0, description="Share of the sequences that a tree is grown on"
    )
    bagging_freq: int = Field(
        default=0, ge=0, le=_INT32, description="Draw these sequences again every so many rounds; 0 for never"
    )
    lambda_l1: float = Field(default=0.0, ge=0.0, le=1e30, description="L1 penalty on leaf values")
    lambda_l2: float = Field(default=1.0, ge=0.0, le=1e30, description="L2 penalty on leaf values")
    min_gain_to_split: float = Field(default=0.0, ge=0.0, le=1e30, description="Smallest gain of a split")
    path_smooth: float = Field(
        default=5.0,
        ge=0.0,
        le=1e30,
        description="Pull of leaves with few sequences towards the value of their parent; 0 for none",
    )
    extra_trees: bool = Field(default=True, description="Try one random threshold for each feature instead of all")
    max_bin: int = Field(default=63, ge=2, le=65_535, description="Most bins of a feature's values")
    min_data_in_bin: int = Field(default=3, ge=1, le=_INT32, description="Fewest sequences in a bin")
    n_rounds: int = Field(default=400, ge=1, le=100_000, description="Boosting rounds of every fold")
    select: Select = Field(
        default="other-folds",
        description="Rounds that are kept. other-folds: a fold is scored with the number that is best on the "
        "other folds, and the models have the number that is best on all; last: all of them",
    )
    select_by: By = Field(default="score", description="Figure that chooses the rounds: the headline score, or logloss")
    scenario: Scenario = Field(
        default="mean",
        description="Scenario whose figure it is: all (all sensors), imu (IMU-only), or the mean of both",
    )
    modality_dropout: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Share of the training sequences that appear a second time without thermopile and ToF features",
    )
    class_weight: Literal["none", "balanced"] | Mapping[str, int | float] = Field(
        default="none",
        description="balanced: all gestures weigh the same in sum, and a joint label weighs what its gesture does; or "
        "weights by gesture name, 1 where not named",
    )
    seeds: int = Field(default=1, ge=1, le=100, description="Models averaged, which differ in their seed only")
    top_features: int = Field(
        default=0, ge=0, le=1_000_000, description="Features kept, chosen by gain inside the fold; 0 keeps all"
    )
    quantized: bool = Field(
        default=False,
        description="Quantized gradients: faster, but LightGBM may abort, and then the fold is trained without them",
    )
    threads: int = Field(
        default=0, ge=0, le=4096, description="Threads; 0 for all cores. The model does not depend on it"
    )
    log_every: int = Field(default=1, ge=1, le=100_000, description="Rounds from one line of the history to the next")
    params: Mapping[str, SkipValidation[Value]] = Field(
        default_factory=dict, description="More parameters of LightGBM, by their name or an alias of it"
    )

    STEP: ClassVar[str] = "round"

    ELSEWHERE: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            **dict.fromkeys(("lr", "step_size"), "learning_rate"),
            **dict.fromkeys(("epochs", "iterations", "n_trees", "num_boost_rounds", "n_iterations"), "n_rounds"),
            **dict.fromkeys(("max_iterations", "rounds"), "n_rounds"),
            **dict.fromkeys(("patience", "od_wait", "early_stopping_patience"), _NO_PATIENCE),
            "stop_on": "select_by",
            "tolerance": "select_by",
            **dict.fromkeys(("depth", "tree_depth"), "max_depth"),
            **dict.fromkeys(("leaves", "n_leaves", "max_leaf_count"), "num_leaves"),
            "gamma": "min_gain_to_split",
            "l1": "lambda_l1",
            **dict.fromkeys(("l2", "l2_leaf_reg", "weight_decay"), "lambda_l2"),
            **dict.fromkeys(("rsm", "max_features"), "feature_fraction"),
            **dict.fromkeys(("border_count", "n_bins"), "max_bin"),
            **dict.fromkeys(("class_weights", "weights"), "class_weight"),
            **dict.fromkeys(("n_seeds", "num_seeds"), "seeds"),
        }
    )
    """What other tools call our settings, where LightGBM has no alias of its own -> the setting to suggest."""

    @field_validator("class_weight", mode="before")
    @classmethod
    def _check_class_weight(cls, weight: Any) -> Any:
        if isinstance(weight, Mapping):
            for gesture, value in weight.items():
                if not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
                    raise expected(f"a number from 0 on for {gesture!r}")
        elif weight not in ("balanced", "none"):
            raise expected("balanced, none, or weights by gesture")
        return weight

    @field_validator("params")
    @classmethod
    def _check_params(cls, params: Mapping[str, Value]) -> Mapping[str, Value]:
        for name, value in params.items():
            check_parameter(name, value)
        return params

    @model_validator(mode="after")
    def _accepted(self) -> Self:
        if self.params:
            _try_out(self)
        return self

    @property
    def n_steps(self) -> int:
        """Steps of a model: rounds."""
        return self.n_rounds

    @property
    def rule(self) -> Rule:
        """What makes one round better than another."""
        return Rule(self.select_by, self.scenario)

    @property
    def why_last(self) -> str:
        """Say why no round but the last can be kept; empty where one can."""
        boosting = {canonical(name): value for name, value in self.params.items()}.get("boosting")
        dart = str(boosting).lower() == "dart"  # LightGBM takes it in capitals too
        return "boosting=dart changes earlier trees in later rounds" if dart else ""

    def lightgbm(self) -> dict[str, Value]:
        """Give the parameters that LightGBM gets, but for the task's own: classes, seed and threads."""
        return {
            "objective": "multiclass",
            "metric": "None",
            "verbosity": -1,
            "deterministic": True,
            "force_col_wise": True,
            "enable_bundle": False,
            "feature_pre_filter": False,
            **{name: getattr(self, name) for name in SHARED},
            "use_quantized_grad": self.quantized,
            **{canonical(name): value for name, value in self.params.items()},
        }


def canonical(name: str) -> str:
    """Give the main name of a LightGBM parameter that may be called by an alias.

    >>> canonical("eta")
    'learning_rate'

    Raises
    ------
    UsageError
        When LightGBM has no such parameter; names the nearest one of it or of `Config`.
    """
    main = parameter_names().get(name)
    if main is None:
        known = [*parameter_names(), *Config.model_fields]
        raise UsageError(f"LightGBM has no parameter {name!r}", hint=_nearest(name, known))
    return main


def check_parameter(name: str, value: Value) -> None:
    """Check that a LightGBM parameter exists, may be set, and has a value that can be passed on.

    Raises
    ------
    UsageError
        When one of these does not hold.
    """
    main = canonical(name)
    if main in SHARED or main in RENAMED:
        raise UsageError(f"{name!r} is a setting of its own", hint=f"set {RENAMED.get(main, main)} instead")
    if main in REFUSED:
        raise UsageError(f"{name!r} cannot be set: {REFUSED[main]}")
    parts = value if isinstance(value, list | tuple) else (value,)
    texts = [str(part) for part in parts if isinstance(part, str | int | float)]
    if len(texts) < len(parts) or not all(texts) or set("".join(texts)) & set(" \t\r\n=#"):
        raise UsageError(f"{name} is {value!r}, expected one number or word without spaces")


def _nearest(name: str, known: tuple[str, ...] | list[str]) -> str | None:
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {found[0]}?" if found else None


def _try_out(config: Config) -> None:
    """Let LightGBM itself read the parameters, on four rows, so that a wrong value fails at once."""
    silence()
    params = {name: value for name, value in config.lightgbm().items() if name not in BY_FEATURE}
    params |= {"num_class": 2, "num_threads": 1}
    rows, labels = np.arange(4.0).reshape(4, 1), np.array([0, 1, 0, 1])
    try:
        lgb.Booster(params=params, train_set=lgb.Dataset(rows, labels, params=params))
    except (lgb.basic.LightGBMError, TypeError, ValueError) as error:
        raise UsageError(f"LightGBM refuses {dict(config.params)}: {error}") from None
