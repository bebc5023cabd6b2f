import numpy as np
import pytest

from bfrbctl.models.keras.backend import keras, ops, to_numpy
from bfrbctl.models.keras.learning.losses import HierarchicalLoss, KnownCrossEntropy, PhaseLoss
from bfrbctl.models.keras.learning.optimizer import FlatAdamW
from bfrbctl.models.keras.network.images import FAR, FlatPixels, ImageEncoder, Mixup, MixupMask
from bfrbctl.models.keras.network.layers import ConvNorm, HalveTime, MaskedAttention, MaskedMean, SqueezeExcite
from bfrbctl.models.keras.network.recurrent import Bidirectional

LENGTHS = (3, 8, 5)
TIME = 8


def padded(extra: int = 0, *, channels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Three sequences padded at the front, zeros on padding: (3, 8 + extra, channels) and their mask."""
    rng = np.random.default_rng(0)
    frames = np.zeros((3, TIME + extra, channels), dtype=np.float32)
    mask = np.zeros((3, TIME + extra, 1), dtype=np.float32)
    for row, length in enumerate(LENGTHS):
        frames[row, -length:] = rng.normal(size=(length, channels))
        mask[row, -length:] = 1.0
    return frames, mask


@pytest.mark.parametrize(
    "layer",
    [
        ConvNorm(5, 3),
        SqueezeExcite(2),
        MaskedAttention(4),
        MaskedMean(),
        Bidirectional(4, "lstm"),
        Bidirectional(4, "gru"),
    ],
    ids=lambda layer: layer.name,
)
def test_extra_padding_changes_nothing(layer: object) -> None:
    short, long = padded(), padded(16)
    first, second = to_numpy(layer(*short)), to_numpy(layer(*long))
    np.testing.assert_allclose(first, second[:, -TIME:] if second.ndim == 3 else second, atol=1e-6)
    if second.ndim == 3:
        assert (second[long[1][..., 0] == 0] == 0).all()


def test_batch_statistics_come_from_recorded_frames_alone() -> None:
    results = []
    for extra in (0, 40):
        layer = ConvNorm(5, 3, seed=7)
        out = to_numpy(layer(*padded(extra), training=True))
        results.append((out[:, -TIME:], to_numpy(layer.mean), to_numpy(layer.variance)))
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_training_normalises_recorded_frames_to_mean_zero_and_variance_one() -> None:
    layer = ConvNorm(5, 3, relu=False)
    frames, mask = padded()
    rows = to_numpy(layer(frames, mask, training=True))[mask[..., 0] == 1]
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(rows.var(axis=0), 1.0, atol=0.02)


@pytest.mark.parametrize(("cell", "stock"), [("lstm", keras.layers.LSTM), ("gru", keras.layers.GRU)])
def test_recurrence_equals_the_stock_layer_on_each_sequence_alone(cell: str, stock: object) -> None:
    ours = Bidirectional(4, cell, seed=3)
    frames, mask = padded()
    found = to_numpy(ours(frames, mask))
    reference = keras.layers.Bidirectional(stock(4, return_sequences=True))
    reference.build((None, None, 6))
    width = (4 if cell == "lstm" else 3) * 4
    kernel, bias = to_numpy(ours.kernel), to_numpy(ours.bias)
    for side, layer in enumerate((reference.forward_layer, reference.backward_layer)):
        part = slice(side * width, (side + 1) * width)
        state, *state_bias = map(to_numpy, ours.states[side])
        order = _stock_order(cell)
        stock_bias = np.stack([bias[part][order], *(each[order] for each in state_bias)])
        layer.set_weights([kernel[:, part][:, order], state[:, order], stock_bias.squeeze()])
    for row, length in enumerate(LENGTHS):
        expected = to_numpy(reference(frames[row : row + 1, -length:]))
        np.testing.assert_allclose(found[row : row + 1, -length:], expected, atol=1e-5)


def _stock_order(cell: str) -> np.ndarray:
    """Where each of the stock layer's gates lies in ours: LSTM i, f, c, o against i, f, o, c; GRU is the same."""
    gates = [0, 1, 3, 2] if cell == "lstm" else [0, 1, 2]
    return np.concatenate([np.arange(4) + 4 * gate for gate in gates])


def test_pooling_keeps_the_larger_of_two_frames_and_the_mask_alike() -> None:
    frames, mask = padded()
    halved = to_numpy(HalveTime()(np.maximum(frames, 0)))
    np.testing.assert_array_equal(halved, np.maximum(np.maximum(frames[:, ::2], frames[:, 1::2]), 0))
    assert to_numpy(HalveTime()(mask))[:, :, 0].sum(axis=1).tolist() == [2.0, 4.0, 3.0]


def test_pixels_are_near_far_or_missing() -> None:
    tof = np.full((1, 1, 2, 64), 255, dtype=np.uint8)
    tof[0, 0, 0, :3] = [0, 249, 254]
    flat = to_numpy(FlatPixels()(tof))[0, 0]
    assert flat.shape == (2 * 65,)
    np.testing.assert_allclose(flat[:4], [-1.0, 124 / 125, FAR, 0.0])
    assert flat[-2:].tolist() == [1.0, 0.0]


def test_encoding_images_is_a_convolution() -> None:
    tof = np.random.default_rng(0).integers(0, 254, (2, 3, 1, 64)).astype(np.uint8)
    tof[0, 0, 0, :9] = [254] * 9
    layer = ImageEncoder(4, 3, seed=1)
    code = to_numpy(layer(tof))
    images = np.where(tof < 254, (tof - 125.0) / 125, FAR).astype(np.float32)
    found = ops.conv(images.reshape(-1, 8, 8, 1), layer.kernel, strides=2, padding="same")
    dense = ops.matmul(ops.reshape(ops.relu(found), (-1, 16 * 4)), layer.dense)
    np.testing.assert_allclose(code.reshape(-1, 3), to_numpy(ops.relu(dense)), atol=1e-5)
    assert (code > 0).any()


def test_a_missing_sensor_gives_exactly_nothing() -> None:
    layer = ImageEncoder(4, 3)
    tof = np.random.default_rng(0).integers(0, 250, (2, 4, 2, 64)).astype(np.uint8)
    tof[:, :, 1] = 255
    layer.build(tof.shape)
    layer.place.assign(np.ones((2, 3), dtype=np.float32))
    code = to_numpy(layer(tof))
    assert (code[..., 3:] == 0).all()
    assert (code[..., :3] != 0).any()


def test_mixup_blends_values_and_joins_masks() -> None:
    frames, mask = padded()
    weight, partner = np.array([1.0, 0.6, 0.5], dtype=np.float32), np.array([1, 2, 0], dtype=np.int32)
    mixed = to_numpy(Mixup()(frames, weight, partner))
    np.testing.assert_allclose(mixed[1], 0.6 * frames[1] + 0.4 * frames[2], atol=1e-6)
    assert to_numpy(MixupMask()(mask, partner))[:, :, 0].sum(axis=1).tolist() == [8.0, 8.0, 5.0]


def test_loss_is_that_of_gestures_plus_that_of_merged_classes_plus_that_of_target_or_not() -> None:
    logits = np.array([[1.0, 0.0, 2.0, -1.0]], dtype=np.float32)
    proba = np.exp(logits[0]) / np.exp(logits[0]).sum()
    truth = np.array([[0.0, 0.0, 0.0, 1.0]], dtype=np.float32)
    loss = HierarchicalLoss((True, True, False, False), merged=0.5, binary=0.25)
    expected = -np.log(proba[3]) - 0.75 * np.log(proba[2] + proba[3])
    np.testing.assert_allclose(
        to_numpy(loss.call(ops.convert_to_tensor(truth), ops.convert_to_tensor(logits))), [expected], rtol=1e-5
    )


def test_loss_of_joint_labels_adds_up_those_of_a_gesture_in_its_merged_term() -> None:
    targets, gesture_of = (True, True, True, False, False), (0, 0, 1, 2, 2)
    rng = np.random.default_rng(0)
    truth = np.eye(5, dtype=np.float32)[[0, 2, 4]]
    logits = rng.normal(size=(3, 5)).astype(np.float32)
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = -np.log((truth * proba).sum(axis=1))
    merged = -np.log([proba[0, :2].sum(), proba[1, 2], proba[2, 3:].sum()])
    binary = -np.log([proba[0, :3].sum(), proba[1, :3].sum(), proba[2, 3:].sum()])
    loss = HierarchicalLoss(targets, gesture_of=gesture_of, merged=0.5, binary=0.25)
    found = to_numpy(loss.call(ops.convert_to_tensor(truth), ops.convert_to_tensor(logits)))
    np.testing.assert_allclose(found, own + 0.5 * merged + 0.25 * binary, rtol=1e-5)
    again = HierarchicalLoss.from_config(loss.get_config())
    assert (again.gesture_of, again.targets) == (gesture_of, targets)


def test_loss_of_postures_leaves_out_unknown_ones() -> None:
    truth = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]], dtype=np.float32)
    logits = np.array([[9.0, -9.0], [0.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    loss = KnownCrossEntropy().call(ops.convert_to_tensor(truth), ops.convert_to_tensor(logits))
    np.testing.assert_allclose(to_numpy(loss), [0.0, np.log(2), 0.5 * np.log(2)], rtol=1e-6)


def test_phase_loss_looks_at_known_frames_alone() -> None:
    truth = np.array([[[-1.0], [1.0], [0.0]]], dtype=np.float32)
    logits = np.array([[[50.0], [0.0], [0.0]]], dtype=np.float32)
    loss = PhaseLoss().call(ops.convert_to_tensor(truth), ops.convert_to_tensor(logits))
    np.testing.assert_allclose(to_numpy(loss), [np.log(2.0)], rtol=1e-6)


def test_the_optimizer_on_one_vector_takes_the_steps_of_the_stock_one() -> None:
    stock = keras.optimizers.AdamW(1e-2, weight_decay=0.1, global_clipnorm=0.5, use_ema=True, ema_momentum=0.9)
    stock.exclude_from_weight_decay(var_names=["bias"])
    ours = FlatAdamW(1e-2, decay=0.1, l2=0.0, clip=0.5, memory=0.9)
    found = [_trained(optimizer) for optimizer in (stock, ours)]
    for expected, values in zip(*found, strict=True):
        np.testing.assert_allclose(values, expected, atol=2e-4)


def _trained(optimizer: object) -> list[np.ndarray]:
    """Weights after 20 steps, then their running mean."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (5, 4), "bias": (4,)}
    weights = [keras.Variable(rng.normal(size=shape), name=name, dtype="float32") for name, shape in shapes.items()]
    for _ in range(20):
        optimizer.apply([ops.convert_to_tensor(rng.normal(size=w.shape).astype(np.float32)) for w in weights], weights)
    last = [to_numpy(weight).copy() for weight in weights]
    optimizer.finalize_variable_values(weights)
    return [*last, *(to_numpy(weight) for weight in weights)]
