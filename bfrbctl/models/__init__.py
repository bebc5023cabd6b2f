"""Models of one fold; the only package that imports lightgbm, Keras or one of its back ends.

`interface` says what a model is and finds the module of a kind; `lightgbm` and `keras` are the two kinds.
"""
