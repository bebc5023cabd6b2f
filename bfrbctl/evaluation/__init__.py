"""Honest scores: folds, metrics, out-of-fold tables, the choice of steps, intervals.

`folds` assigns subjects, `metrics` and `discrimination` score, `oof` is the out-of-fold table, `selection` chooses
rounds and epochs by other folds, `bootstrap` gives intervals, `labels` finds joint labels, `in_sample` records what a
model was trained on.
"""
