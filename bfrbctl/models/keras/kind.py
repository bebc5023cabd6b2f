"""Networks of Keras as a kind of model; nothing here loads Keras before it trains."""

from bfrbctl.models.interface import Kind
from bfrbctl.models.keras.model import ensemble, fit, fit_member, load, load_step, rehearse
from bfrbctl.models.keras.settings import Config

KIND = Kind(
    name="keras",
    config_class=Config,
    needs=frozenset({"frames", "tof"}),
    fit=fit,
    load=load,
    ensemble=ensemble,
    load_step=load_step,
    fit_member=fit_member,
    rehearse=rehearse,
)
