"""Slow, plain versions of what the feature engine computes: the oracle of its tests, one signal at a time.

Every function takes one 1-D float64 array (NaN where missing) and the rate, and answers a dict from statistic to
value. Nothing is shared with the engine but the definition.
"""
