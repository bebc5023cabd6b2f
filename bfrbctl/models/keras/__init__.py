"""Networks on the frame channels: Keras trains them, NumPy predicts with them.

`kind` is the kind of model, `settings` its settings, `model` what is trained. `network` says how networks are built,
`learning` how they are trained, `runtime` how they predict without Keras; `spec` is the file that describes one.
"""
