"""Members of a blend that know the truth but for noise, and their labels."""

import numpy as np
import polars as pl

from bfrbctl.evaluation.oof import OofScenario

TARGETS = [True, True, False]


def members(n: int = 300, seed: int = 0, noise: tuple[float, ...] = (1.0, 1.0)) -> tuple[list[np.ndarray], OofScenario]:
    """Members that know the truth but for noise of their own."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    probas = []
    for level in noise:
        logits = 2.0 * np.eye(3)[truth] + level * rng.normal(size=(n, 3))
        powers = np.exp(logits)
        probas.append((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))
    keys = pl.DataFrame(
        {
            "sequence_id": [f"q{i:04d}" for i in range(n)],
            "subject": [f"s{i % 12}" for i in range(n)],
            "fold": [i % 12 % 4 for i in range(n)],
            "gesture": [str(k) for k in truth],
        }
    )
    return probas, OofScenario(keys, truth.astype(np.int64), probas[0])
