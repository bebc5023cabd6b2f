"""Folders on disk: written atomically, journalled, sealed by digests, and refused where they are unsafe.

`folders.open_folder` reads a finished folder, `outputs.open_output` writes one; `journals` knows interrupted runs,
`tables` the schema of every table, `files` single files.
"""
