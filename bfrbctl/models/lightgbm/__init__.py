"""Boosted trees on the sequence table, by LightGBM.

`model` is the kind: its `Config`, `fit` and `load`; `text` checks model files that may come from a stranger.
"""
