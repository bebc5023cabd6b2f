"""Boosted trees on the sequence table, by LightGBM.

`kind` is the kind of model, `config` its settings, `model` what is trained; `text` checks model files that may come
from a stranger.
"""
