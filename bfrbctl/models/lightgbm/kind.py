"""LightGBM as a kind of model."""

from bfrbctl.models.interface import Kind
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.model import Forest, fit, fit_member, load, load_step
from bfrbctl.models.lightgbm.rehearsal import rehearse

KIND = Kind(
    name="lgbm",
    config_class=Config,
    needs=frozenset({"table"}),
    fit=fit,
    load=load,
    ensemble=Forest,
    load_step=load_step,
    fit_member=fit_member,
    rehearse=rehearse,
)
