"""Predictions for new recordings: one by one, in batches, and behind the competition's gateway.

`predictor.Predictor` is the Python entry, `submission.predict` reads whole inputs, `packing.pack` makes
a folder to upload.
"""
