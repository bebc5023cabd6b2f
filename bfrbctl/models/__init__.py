"""Models of one fold; the only package that imports lightgbm, Keras or one of its back ends.

`interface` says what a model and a kind of model are, and finds a kind by name (`model_kind`); `lightgbm` and `keras`
are the two kinds.
"""
