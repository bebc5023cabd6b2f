"""Blends of models: temperatures, weights, decoding and assignment, fitted on out-of-fold predictions.

`blending.blend` writes a blend folder; `members` opens what a blend, or a single model, predicts with.
"""
