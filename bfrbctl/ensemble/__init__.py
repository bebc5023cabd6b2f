"""Blends of models: temperatures, weights, decoding and assignment, fitted on out-of-fold predictions.

`blending.blend` writes a blend folder; `members` opens what a blend, or a single model, predicts with. `mixing`
averages probabilities, `fitting` fits temperatures and weights, `decoding` turns probabilities into gestures, `nesting`
scores all of that by groups that were left out, and `assignment` gives each joint label at most once to a wearer.
"""
