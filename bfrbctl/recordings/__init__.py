"""Recordings: raw files are checked and repaired into a prepared dataset, which is read back in whole sequences.

`preparation.prepare` writes a dataset, `dataset.read_recordings` reads one. `raw` and `raw_sequences` read raw files,
`cleaning` checks and repairs them, `writing` makes the frames files of one, `serving` gives checked recordings to a
model without writing a dataset.
"""
