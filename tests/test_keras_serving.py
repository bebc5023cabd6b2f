from dataclasses import replace

import numpy as np
import pytest

from bfrbctl.errors import DataError
from bfrbctl.models import Average, ensemble_of
from bfrbctl.models.keras_backend import to_numpy
from bfrbctl.models.keras_inputs import fit_scaler, plan_inputs
from bfrbctl.models.keras_model import KerasFoldModel, ensemble
from bfrbctl.models.keras_networks import HELIOS, TWO_BRANCH, NetworkSpec, build_network
from bfrbctl.models.keras_rotation import find_turned
from bfrbctl.models.keras_serving import FEW, Inputs, Networks, few_lengths
from bfrbctl.models.keras_spec import ModelSpec
from bfrbctl.segments import AnyArray
from tests.keras_batches import CLASSES, TARGETS, made


def fold(*, length: int, seeds: int = 1, all_sensors: bool = True, network: str = HELIOS) -> KerasFoldModel:
    """A fold whose networks never trained: what they compute with is as good for comparing."""
    batch, _ = made(30, seed=length, all_sensors=all_sensors)
    plan = plan_inputs(batch, length=length, pad="left")
    spec = NetworkSpec(network, plan.n_imu, plan.n_other, plan.n_tof, n_classes=4, width=0.1)
    weights = [
        [to_numpy(weight) for weight in build_network(spec, seed=length + k).predict.weights] for k in range(seeds)
    ]
    told = ModelSpec(spec, plan, CLASSES, TARGETS, 10.0)
    return KerasFoldModel(told, fit_scaler(batch, plan, find_turned(plan.imu)), weights, {})


@pytest.fixture(scope="module")
def folds() -> list[KerasFoldModel]:
    """Two folds that differ in everything a fold may: weights, scaling, number of networks, frames read."""
    return [fold(length=48), fold(length=32, seeds=2)]


@pytest.fixture(scope="module")
def together(folds: list[KerasFoldModel]) -> Networks:
    """Made once, as tracing takes seconds."""
    return ensemble(folds)


def test_the_answer_is_the_average_of_the_folds(folds: list[KerasFoldModel], together: Networks) -> None:
    batch, _ = made(24, seed=8)
    for given in (batch, batch.imu_only()):
        asked = Average(folds).predict_proba(given)
        proba = together.predict_proba(given)
        assert proba.dtype == np.float32
        np.testing.assert_allclose(proba, asked, atol=1e-6)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)


def test_one_at_a_time_is_as_all_at_once(together: Networks) -> None:
    batch, _ = made(10, seed=6)
    assert batch.n_sequences > FEW
    everything = together.predict_proba(batch)
    alone = [together.predict_proba(batch.take(np.array([i]))) for i in range(10)]
    np.testing.assert_allclose(np.concatenate(alone), everything, atol=1e-6)


def test_folds_that_read_different_lengths_share_one_call_where_padding_lies_in_front(
    folds: list[KerasFoldModel], together: Networks
) -> None:
    assert [fold.spec.inputs.length for fold in folds] == [48, 32]
    assert len(together.groups) == 1
    behind = [replace(fold, spec=replace(fold.spec, inputs=replace(fold.spec.inputs, pad="right"))) for fold in folds]
    apart = ensemble_of("keras", behind)
    assert isinstance(apart, Networks)
    assert len(apart.groups) == 2
    batch, _ = made(8, seed=3)
    np.testing.assert_allclose(apart.predict_proba(batch), Average(behind).predict_proba(batch), atol=1e-6)


def test_lengths_are_few_and_end_with_the_longest(folds: list[KerasFoldModel]) -> None:
    plan = folds[0].spec.inputs
    assert few_lengths(plan) == (32, 48)
    assert few_lengths(replace(plan, length=128)) == (64, 96, 128)
    assert few_lengths(replace(plan, length=16)) == (16,)


def test_warming_up_answers_sequences_of_each_length(together: Networks) -> None:
    group = together.groups[0]
    seen: list[int] = []

    def note(inputs: Inputs) -> AnyArray:
        seen.append(inputs["mask"].shape[1])
        return np.zeros((3, 1, 4))

    replace(group, compiled=replace(group.compiled, one=note, warms=True)).warm()
    assert sorted(seen) == [32, 48]
    seen.clear()
    replace(group, compiled=replace(group.compiled, one=note, warms=False)).warm()
    assert seen == []


def test_no_sequence_gets_no_answer_and_a_missing_channel_is_told(together: Networks) -> None:
    batch, _ = made(3)
    assert together.predict_proba(batch.take(np.zeros(0, dtype=np.int64))).shape == (0, 4)
    with pytest.raises(DataError, match="acc_x"):
        together.predict_proba(replace(batch, channels=batch.channels[1:], frames=batch.frames[:, 1:]))


def test_a_backend_that_compiles_every_shape_gets_few_shapes(together: Networks) -> None:
    group = together.groups[0]
    shapes: set[tuple[int, ...]] = set()

    def note(inputs: Inputs) -> AnyArray:
        shapes.add(inputs["mask"].shape)
        return group.compiled.many(inputs)

    fixed = replace(together, groups=(replace(group, compiled=replace(group.compiled, many=note, rows=8)),))
    batch, _ = made(21, seed=9)
    np.testing.assert_allclose(fixed.predict_proba(batch), together.predict_proba(batch), atol=1e-6)
    assert shapes == {(8, 32, 1), (8, 48, 1)}


def test_a_device_without_other_sensors_is_served() -> None:
    found = fold(length=48, all_sensors=False, network=TWO_BRANCH)
    batch, _ = made(7, seed=4, all_sensors=False)
    np.testing.assert_allclose(ensemble([found]).predict_proba(batch), found.predict_proba(batch), atol=1e-6)
