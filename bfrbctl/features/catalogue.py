"""What the engine gives: the columns of the frame channels and of the sequence table, known without any data."""

from functools import lru_cache

from bfrbctl.features.channels import imu, thermopile, tof
from bfrbctl.features.channels.canonical import layout_used
from bfrbctl.features.settings import FeatureConfig
from bfrbctl.features.table import arrival, coupling, wearer
from bfrbctl.features.table.plan import feature_groups, group_columns
from bfrbctl.recordings.dataset import Column
from bfrbctl.schema import SensorLayout

EXTRAS = (*wearer.EXTRAS, *arrival.EXTRAS, *coupling.EXTRAS)
"""Features that are no statistic of one signal, in the order of their columns, after those of the studies."""


@lru_cache(maxsize=32)
def all_channels(layout: SensorLayout) -> tuple[Column, ...]:
    """Describe every frame channel of a device, wanted or not: sequence features are computed from them."""
    return imu.describe() + thermopile.describe(layout) + tof.describe(layout)


def extra_columns(layout: SensorLayout) -> tuple[Column, ...]:
    """Describe every feature that is not a statistic of one signal, wanted or not."""
    return tuple(column for extra in EXTRAS for column in extra.describe(layout))


@lru_cache(maxsize=32)
def columns(config: FeatureConfig, layout: SensorLayout) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Describe what `compute` will give.

    Parameters
    ----------
    config
        Which families and modalities are wanted.
    layout
        Which sensors the device has.

    Returns
    -------
    The sequence features and the frame channels; the same for every recording of such a device.

    Examples
    --------
    >>> features, channels = columns(FeatureConfig(families=("person", "presence")), SensorLayout(thm=(), tof=()))
    >>> [column.name for column in channels]
    ['rot_present']
    """
    used = layout_used(layout, config)
    channels = all_channels(used)
    by_name = {column.name: column for column in channels}
    features = [column for group in feature_groups(used, config) for column in group_columns(group, by_name)]
    features += [column for column in extra_columns(used) if column.family in config.families]
    return tuple(features), tuple(column for column in channels if column.family in config.families)
