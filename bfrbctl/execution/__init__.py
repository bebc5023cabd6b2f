"""Where work runs: this process, processes of this machine, or a Dask cluster; and how much memory it may take.

`workers` shares tasks out, `cluster` joins a Dask cluster, `memory` finds the limit, `cache` keeps arrays below it.
"""
