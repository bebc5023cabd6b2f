"""Networks on the frame channels: Keras trains them, NumPy predicts with them.

`model` is the kind: its `Config`, `fit` and `load`. `network` says how networks are built, `learning` how they are
trained, `runtime` how they predict without Keras; `spec` is the file that describes one.
"""
