"""Recognise body-focused repetitive behaviours from wrist-sensor recordings.

>>> from bfrbctl import Predictor                                       # doctest: +SKIP
>>> predictor = Predictor.open("blend")                                 # doctest: +SKIP
>>> predictor.predict(sequence, demographics)                           # doctest: +SKIP
'Text on phone'
>>> predictor.predict_proba(frames, demographics)  # a table            # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bfrbctl.prediction.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Import public names when they are asked for, so that `import bfrbctl` loads no library."""
    if name == "Predictor":
        return import_module("bfrbctl.prediction.predictor").Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names before they are loaded, too: what completion offers."""
    return sorted({*globals(), *__all__})
