"""Folders on disk: written atomically, journalled, sealed by digests, and refused where they are unsafe.

`folders.open_folder` reads a finished folder, and `content` has a model of what its manifest says.
`outputs.open_output` writes one, and `locks` guards it; `journals` knows interrupted runs, `tables` the schema of
every table, `files` single files.
"""
