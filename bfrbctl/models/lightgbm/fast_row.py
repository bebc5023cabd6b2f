"""One row through a booster by LightGBM's own fast path, which prepares once what `Booster.predict` does at each call.

`Booster.predict` of one row parses its parameters, allocates a predictor and opens an OpenMP region every time: a
quarter of its time on an idle machine, and milliseconds where other processes want the core.
Source: `LGBM_BoosterPredictForMatSingleRowFast` of LightGBM's C API, there since version 3.0.
"""

import ctypes
import weakref
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import Float32, Float64
from bfrbctl.models.lightgbm.library import lgb

_LIB: Any = lgb.basic._LIB
_FLOAT32, _NORMAL, _FIRST, _ALL = 0, 0, 0, -1
_ONE_THREAD = b"num_threads=1"


class FastRow:
    """A booster made ready for single rows.

    Parameters
    ----------
    booster
        Of validated text: the library does not look at its numbers.
    n_features, n_classes
        Of the booster.
    """

    def __init__(self, booster: Any, *, n_features: int, n_classes: int) -> None:
        self.booster = booster  # kept, as the prepared call points into it
        self.n_features, self.n_classes = n_features, n_classes
        self._prepared = ctypes.c_void_p()
        _see(
            _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
                booster._handle,
                ctypes.c_int(_NORMAL),
                ctypes.c_int(_FIRST),
                ctypes.c_int(_ALL),
                ctypes.c_int(_FLOAT32),
                ctypes.c_int32(n_features),
                ctypes.c_char_p(_ONE_THREAD),
                ctypes.byref(self._prepared),
            )
        )
        weakref.finalize(self, _LIB.LGBM_FastConfigFree, self._prepared)

    def predict(self, row: Float32) -> Float64:
        """Give what `Booster.predict` gives: float32 (n_features,), contiguous -> float64 (n_classes,)."""
        if row.shape != (self.n_features,) or row.dtype != np.float32 or not row.flags.c_contiguous:
            raise ValueError(f"a row of {row.dtype} {row.shape}, expected contiguous float32 ({self.n_features},)")
        out = np.empty(self.n_classes)
        n_given = ctypes.c_int64()
        _see(
            _LIB.LGBM_BoosterPredictForMatSingleRowFast(
                self._prepared,
                ctypes.c_void_p(row.ctypes.data),
                ctypes.byref(n_given),
                ctypes.c_void_p(out.ctypes.data),
            )
        )
        return out


def _see(code: int) -> None:
    if code != 0:
        raise lgb.basic.LightGBMError(_LIB.LGBM_GetLastError().decode("utf-8", "replace"))
