"""The sequence table: one row of features for each recording.

`plan` says which statistics of which signals over which windows; the other modules compute them.
"""
