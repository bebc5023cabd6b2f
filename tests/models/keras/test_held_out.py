"""Held-out sequences decide nothing about a network: neither their labels nor their values reach a weight."""

from dataclasses import replace
from pathlib import Path

import pytest

from bfrbctl.models.interface import FoldTask
from bfrbctl.models.keras.model import fit
from bfrbctl.models.keras.network.layout import NETWORKS
from bfrbctl.models.keras.settings import Config
from tests.keras_batches import made, task


def weights_after(job: FoldTask, config: Config, scratch: Path) -> bytes:
    """Train in a folder of its own; gives the file of the weights, with the scaling."""
    scratch.mkdir()
    return fit(replace(job, scratch=scratch), config).encode()["keras.npz"]


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_do_not_depend_on_held_out_labels_or_values(network: str, tmp_path: Path) -> None:
    config = Config(network=network, width=0.1, epochs=3, batch_size=16, learning_rate=0.01, class_weight="balanced")
    job = task(tmp_path)
    expected = weights_after(job, config, tmp_path / "as-it-is")
    wrong = (job.valid_labels + 2) % 4  # the better a network becomes, the worse it scores
    values, labels = made(12, seed=9)
    changed = replace(values, frames=values.frames * 50.0 + 7.0, tof=255 - values.tof)
    for name, held_out in (
        ("wrong labels", replace(job, valid_labels=wrong)),
        ("other values", replace(job, valid=changed, valid_labels=labels)),
    ):
        assert weights_after(held_out, config, tmp_path / name) == expected, name
