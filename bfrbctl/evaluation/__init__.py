"""Honest scores: folds, metrics, out-of-fold tables, the choice of steps, intervals.

`folds` deals subjects, `metrics` and `discrimination` score, `oof` is the out-of-fold table, `selection` chooses rounds
and epochs by other folds, `bootstrap` gives intervals, `labels` knows joint labels, `in_sample` what a
model learned from.
"""
