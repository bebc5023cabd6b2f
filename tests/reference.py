"""Slow, plain versions of what the feature engine computes: the oracle of its tests, one signal at a time.

A function of a family takes one 1-D float64 array (NaN where missing) and the rate, and answers a dict from statistic
to value; NaN where the statistic is not measurable. Nothing is shared with the engine but the definitions. At the end
stand figures of the evaluation, counted one sequence at a time.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
from scipy import signal, stats
from scipy.spatial.transform import Rotation

from bfrbctl.arrays.ragged import AnyArray

NAN = float("nan")


def known(x: AnyArray) -> AnyArray:
    return x[~np.isnan(x)]


def std_of(x: AnyArray) -> float:
    v = known(x)
    if v.size == 0:
        return NAN
    std = float(np.std(v))
    return 0.0 if std <= 1e-9 * np.abs(v).max() else std


def tolerance(x: AnyArray) -> float:
    v = known(x)
    return max(1e-6 * std_of(x), 1e-9 * float(np.abs(v).max())) if v.size else NAN


def level(x: AnyArray, rate_hz: float) -> dict[str, float]:
    v = known(x)
    if v.size == 0:
        return dict.fromkeys(("mean", "std", "min", "max"), NAN)
    return {"mean": float(np.mean(v)), "std": std_of(x), "min": float(v.min()), "max": float(v.max())}


def average(x: AnyArray, rate_hz: float) -> dict[str, float]:
    return {name: value for name, value in level(x, rate_hz).items() if name in ("mean", "std")}


def moments(x: AnyArray, rate_hz: float) -> dict[str, float]:
    v, std, out = known(x), std_of(x), level(x, rate_hz)
    if v.size == 0:
        return out | dict.fromkeys(("range", "skew", "kurtosis", "rms", "mad"), NAN)
    out |= {"range": float(np.ptp(v)), "rms": float(np.sqrt(np.mean(v**2)))}
    out["skew"] = float(stats.skew(v)) if std > 0 else NAN
    out["kurtosis"] = float(stats.kurtosis(v)) if std > 0 else NAN
    return out | {"mad": float(np.mean(np.abs(v - v.mean())))}


def quantiles(x: AnyArray, rate_hz: float) -> dict[str, float]:
    v = known(x)
    shares = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
    out = {name: float(np.quantile(v, share)) if v.size else NAN for name, share in shares.items()}
    return out | {"iqr": out["q75"] - out["q25"]}


def trend(x: AnyArray, rate_hz: float) -> dict[str, float]:
    v, t = known(x), np.flatnonzero(~np.isnan(x)) / rate_hz
    return {
        "slope": float(np.polyfit(t, v, 1)[0]) if v.size > 1 else NAN,
        "curvature": float(np.polyfit(t, v, 2)[0]) if v.size > 2 else NAN,
        "start": float(v[0]) if v.size else NAN,
        "end": float(v[-1]) if v.size else NAN,
    }


def mean_crossings(x: AnyArray, rate_hz: float) -> dict[str, float]:
    return {"mean_crossings": _crossings(x, float(np.mean(known(x))) if known(x).size else NAN, rate_hz)}


def zero_crossings(x: AnyArray, rate_hz: float) -> dict[str, float]:
    return {"zero_crossings": _crossings(x, 0.0, rate_hz)}


def _crossings(x: AnyArray, centre: float, rate_hz: float) -> float:
    n_pairs = n_changes = 0
    for a, b in pairwise(x):
        if not np.isnan(a) and not np.isnan(b):
            n_pairs += 1
            n_changes += (a - centre > tolerance(x)) != (b - centre > tolerance(x))
    return n_changes * rate_hz / n_pairs if n_pairs else NAN


def gradient(x: AnyArray, rate_hz: float) -> dict[str, float]:
    steps, std = known(np.diff(x)), std_of(x)
    edges = (-np.inf, -1.0, -0.25, 0.25, 1.0, np.inf)
    out = {
        "step_mean": float(np.mean(np.abs(steps))) if steps.size else NAN,
        "step_std": std_of(steps),
        "step_max": float(np.abs(steps).max()) if steps.size else NAN,
    }
    for i, (low, high) in enumerate(pairwise(edges), start=1):
        inside = [low <= step / std < high for step in steps] if std > 0 else []
        out[f"step_bin{i}"] = float(np.mean(inside)) if inside else NAN
    return out


def autocorrelation(x: AnyArray, rate_hz: float) -> dict[str, float]:
    n_delays = round(2.5 * rate_hz)
    d = np.nan_to_num(x - np.mean(known(x)) if known(x).size else np.zeros_like(x))
    flat = not std_of(x) > 0
    curve = [
        NAN if flat or k >= x.size else float(np.sum(d[k:] * d[: x.size - k]) / np.sum(d * d))
        for k in range(n_delays + 2)
    ]
    out = {
        f"acf_{round(1000 * delay)}ms": curve[min(max(1, round(delay * rate_hz)), n_delays)]
        for delay in (0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
    }
    peaks = [k for k in range(1, n_delays + 1) if curve[k] > curve[k - 1] and curve[k] >= curve[k + 1]]
    return out | {
        "acf_peak_delay": peaks[0] / rate_hz if peaks else NAN,
        "acf_peak": curve[peaks[0]] if peaks else NAN,
    }


def entropy(x: AnyArray, rate_hz: float) -> dict[str, float]:
    out = {}
    for delay in (1, 2):
        words = [x[i : i + 2 * delay + 1 : delay] for i in range(x.size - 2 * delay)]
        orders = [tuple(np.argsort(word, kind="stable")) for word in words if not np.isnan(word).any()]
        counts = np.array([orders.count(order) for order in set(orders)])
        value = float(stats.entropy(counts) / np.log(6)) if orders else NAN
        out[f"permutation_entropy_{delay}"] = value
    return out


def peaks(x: AnyArray, rate_hz: float) -> dict[str, float]:
    maxima = [i for i in range(1, x.size - 1) if x[i] > x[i - 1] and x[i] >= x[i + 1]]
    cuts = [0, *maxima, x.size]
    found, heights = [], []
    for left, place, right in zip(cuts, cuts[1:], cuts[2:], strict=False):
        height = x[place] - max(np.nanmin(x[left:place]), np.nanmin(x[place:right]))
        if height > 0.25 * std_of(x):
            found.append(place)
            heights.append(height)
    gaps = np.diff(found) / rate_hz
    return {
        "peak_rate": len(found) * rate_hz / known(x).size if known(x).size else NAN,
        "peak_spacing": float(np.mean(gaps)) if gaps.size else NAN,
        "peak_spacing_std": float(np.std(gaps)) if gaps.size else NAN,
        "peak_prominence": float(np.mean(heights)) if heights else NAN,
        "peak_prominence_max": float(np.max(heights)) if heights else NAN,
    }


def runs(x: AnyArray, rate_hz: float) -> dict[str, float]:
    names = ("run_above", "run_above_mean", "run_above_var", "run_below", "run_below_mean", "run_below_var")
    if known(x).size == 0:
        return dict.fromkeys((*names, "run_high", "run_low"), NAN)
    mean, std, band = float(np.mean(known(x))), std_of(x), tolerance(x)
    out: dict[str, float] = {}
    for name, threshold, side in (
        ("run_above", mean + band, True),
        ("run_below", mean + band, False),
        ("run_high", mean + std + band, True),
        ("run_low", mean - std - band, False),
    ):
        states = [None if np.isnan(value) else bool(value > threshold) for value in x]
        lengths = [len(list(group)) / rate_hz for state, group in groupby(states) if state is side]
        out[name] = max(lengths, default=0.0)
        out[f"{name}_mean"] = float(np.mean(lengths)) if lengths else NAN
        out[f"{name}_var"] = float(np.var(lengths)) if lengths else NAN
    return {name: value for name, value in out.items() if name in (*names, "run_high", "run_low")}


def segment_length(rate_hz: float) -> int:
    size = 32
    while size < 3.2 * rate_hz:
        size *= 2
    return size


def spectral(x: AnyArray, rate_hz: float) -> dict[str, float]:
    bands = {
        "band1": (0.15, 0.75),
        "band2": (0.75, 1.5),
        "band3": (1.5, 2.5),
        "band4": (2.5, 3.5),
        "band5": (3.5, 5.01),
    }
    shares = ("peak_frequency", "peak_share", "centroid", "bandwidth", "spectral_entropy", "flatness")
    if known(x).size == 0:
        return dict.fromkeys(("power", *bands, *shares), NAN)
    size = segment_length(rate_hz)
    d = np.nan_to_num(x - np.mean(known(x)))
    padded = np.pad(d, (0, max(0, size - x.size)))
    detrend = "constant" if x.size >= size else False
    frequency, density = signal.welch(padded, rate_hz, "hann", nperseg=size, noverlap=size // 2, detrend=detrend)
    frequency, density = frequency[1:], density[1:]
    if std_of(x) == 0:
        return {"power": 0.0} | dict.fromkeys((*bands, *shares), NAN)
    share = density / density.sum()
    centroid = float(np.sum(share * frequency))
    out = {"power": float(density.sum() * frequency[0])}
    for name, (low, high) in bands.items():
        out[name] = float(sum(s for s, f in zip(share, frequency, strict=True) if low <= f < high))
    return out | {
        "peak_frequency": float(frequency[np.argmax(share >= share.max() * (1 - 1e-9))]),
        "peak_share": float(share.max()),
        "centroid": centroid,
        "bandwidth": float(np.sqrt(np.sum(share * (frequency - centroid) ** 2))),
        "spectral_entropy": float(stats.entropy(share) / np.log(share.size)),
        "flatness": float(stats.gmean(np.maximum(share, 1e-9)) / np.mean(share)),
    }


def correlation(a: AnyArray, b: AnyArray) -> float:
    both = ~np.isnan(a) & ~np.isnan(b)
    if both.sum() < 8 or std_of(a) == 0 or std_of(b) == 0:
        return NAN
    return float(np.corrcoef(a[both], b[both])[0, 1])


def coherence(x: AnyArray, y: AnyArray, rate_hz: float) -> dict[str, float]:
    names = ("coherence1", "coherence2", "coherence3", "phase_cos", "phase_sin")
    size = segment_length(rate_hz)
    if x.size < size + 2 * (size // 4) or np.isnan(x).any() or np.isnan(y).any():
        return dict.fromkeys(names, NAN)
    frequency, values = signal.coherence(x, y, rate_hz, "hann", nperseg=size, noverlap=size - size // 4)
    _, cross = signal.csd(x, y, rate_hz, "hann", nperseg=size, noverlap=size - size // 4, scaling="spectrum")
    cross[-1] *= 2  # scipy counts the Nyquist bin once and the others twice; the engine compares them as they are
    place = 1 + int(np.argmax(np.abs(cross[1:])))
    out = {
        name: float(np.mean(values[(frequency >= low) & (frequency < high)]))
        for name, (low, high) in zip(names, ((0.15, 1.5), (1.5, 3.0), (3.0, 5.0)), strict=False)
    }
    phase = float(np.angle(cross[place]))
    return out | {"phase_cos": float(np.cos(phase)), "phase_sin": float(np.sin(phase))}


def window(x: AnyArray, name: str) -> AnyArray:
    n = x.size
    thirds = {"first": (0, n // 3), "middle": (n // 3, 2 * n // 3), "last": (2 * n // 3, n)}
    begin, end = thirds.get(name, (max(0, n - 32), n) if name == "last32" else (0, n))
    return x[begin:end]


def image(pixels: AnyArray) -> dict[str, float]:
    """Describe one 8x8 image (254 no return, 255 missing), pixel by pixel."""
    cells = [(i // 8, i % 8, int(v)) for i, v in enumerate(pixels)]
    hits = [(row, column, value) for row, column, value in cells if value < 254]
    values = [value for _, _, value in hits]

    def depth(inside: AnyArray) -> float:
        chosen = [250 if v == 254 else v for (_, _, v), take in zip(cells, inside, strict=True) if take and v != 255]
        return float(np.mean(chosen)) if chosen else NAN

    rows, columns = np.divmod(np.arange(64), 8)
    third = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    n_measured = sum(value != 255 for _, _, value in cells)
    out = {
        "depth": depth(np.ones(64, dtype=bool)),
        "mean": float(np.mean(values)) if hits else NAN,
        "std": float(np.std(values)) if hits else NAN,
        "min": float(min(values)) if hits else NAN,
        "max": float(max(values)) if hits else NAN,
        "valid": len(hits) / n_measured if n_measured else NAN,
        "lr": depth(columns < 4) - depth(columns >= 4),
        "tb": depth(rows < 4) - depth(rows >= 4),
        "measured": n_measured / 64,
    }
    for i in range(2):
        for j in range(2):
            out[f"q{i + 1}{j + 1}"] = depth((rows // 4 == i) & (columns // 4 == j))
    for i in range(3):
        for j in range(3):
            out[f"r{i + 1}{j + 1}"] = depth((third[rows] == i) & (third[columns] == j))
    if not hits:
        return out | dict.fromkeys(("cx", "cy", "sxx", "syy", "sxy"), NAN)
    weight = np.array([250.0 - value for value in values])
    x, y = (np.array([hit[k] - 3.5 for hit in hits]) for k in (1, 0))
    cx, cy = np.average(x, weights=weight), np.average(y, weights=weight)
    out |= {"cx": float(cx), "cy": float(cy)}
    out |= {"sxx": float(np.average((x - cx) ** 2, weights=weight))}
    out |= {"syy": float(np.average((y - cy) ** 2, weights=weight))}
    return out | {"sxy": float(np.average((x - cx) * (y - cy), weights=weight))}


def motion(acc: AnyArray, rot: AnyArray, rate_hz: float) -> list[dict[str, AnyArray]]:
    """Compute what follows from acceleration and complete rotations (xyzw), a frame at a time."""
    out: list[dict[str, AnyArray]] = []
    for t in range(len(acc)):
        turn = Rotation.from_quat(rot[t])
        up = turn.inv().apply([0.0, 0.0, 1.0])
        linear = acc[t] - 9.81 * up
        here = min(t, len(acc) - 2)
        gyro = np.full(3, NAN)
        if len(acc) > 1:
            gyro = (Rotation.from_quat(rot[here]).inv() * Rotation.from_quat(rot[here + 1])).as_rotvec() * rate_hz
        out.append(
            {
                "up": up,
                "lin": linear,
                "world": turn.apply(linear),
                "gyro": gyro,
                "rot6d": turn.as_matrix()[:, :2].T.reshape(-1),
            }
        )
    return out


# ------------------------------------------------------------------------------------------------------ evaluation


def macro_f1(truth: Sequence[int], predicted: Sequence[int], times: Sequence[int]) -> float:
    """Mean F1 over the classes in truth or prediction, each sequence counted as often as told."""
    counted = [(t, p) for t, p, n in zip(truth, predicted, times, strict=True) for _ in range(n)]
    found = []
    for label in sorted({label for pair in counted for label in pair}):
        hits = sum(t == p == label for t, p in counted)
        found.append(2 * hits / sum((t == label) + (p == label) for t, p in counted))
    return sum(found) / len(found)


def auc(truth: Sequence[bool], values: Sequence[float], times: Sequence[int] | None = None) -> float:
    """Share of the pairs of a positive and a negative sequence that are in order, ties half; NaN without a pair."""
    rows = list(zip(truth, values, times or [1] * len(truth), strict=True))
    wins, pairs = 0.0, 0
    for a_true, a, n_a in rows:
        for b_true, b, n_b in rows:
            if a_true and not b_true:
                wins += n_a * n_b * (1.0 if a > b else 0.5 if a == b else 0.0)
                pairs += n_a * n_b
    return wins / pairs if pairs else NAN
