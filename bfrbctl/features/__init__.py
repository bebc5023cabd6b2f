"""The feature engine: from recordings to frame channels (for nets) and a sequence table (for trees).

Arrays in, arrays out: this package knows no files. `columns` tells what there will be, `compute` gives it.
"""

from bfrbctl.features.catalogue import columns
from bfrbctl.features.engine import compute
from bfrbctl.features.flip_detection import raised, upside_down
from bfrbctl.features.settings import FAMILIES, FeatureConfig

__all__ = ["FAMILIES", "FeatureConfig", "columns", "compute", "raised", "upside_down"]
