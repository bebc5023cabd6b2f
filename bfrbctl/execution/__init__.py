"""Where tasks run: this process, processes of this machine, or a Dask cluster; and how much memory they may take.

`executor` runs tasks, `cluster` connects to a Dask cluster, `memory` finds the limit of memory, `cache` keeps arrays
below it.
"""
