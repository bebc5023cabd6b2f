"""Arrays of sequences of unequal length, and unit quaternions: NumPy alone, no files.

`ragged` has values and offsets and all that reduces, shifts or pads them; `quaternions` the rotations, xyzw.
"""
