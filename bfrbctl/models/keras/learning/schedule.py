"""Learning-rate schedules: the rate at each moment of training."""

import numpy as np

from bfrbctl.models.keras.settings import Config


def rate_at(config: Config, epoch: float) -> float:
    """Give the learning rate at a moment of training, in epochs from its start.

    `one-cycle` rises over the first tenth and falls along a cosine to a hundredth; `cosine` only falls.
    """
    done = epoch / config.epochs
    if config.schedule == "constant":
        return config.learning_rate
    rise = 0.1 if config.schedule == "one-cycle" else 0.0
    if done < rise:
        return config.learning_rate * (0.04 + 0.96 * done / rise)
    falling = 0.5 * (1.0 + np.cos(np.pi * (done - rise) / (1.0 - rise)))
    return float(config.learning_rate * (0.01 + 0.99 * falling))
