"""Look into any folder that bfrbctl writes: views as data, which `cli` draws or prints as JSON, and a report of all.

`inspect` makes one view of a folder, `report.write_report` a page of all that the folder has.
"""

from bfrbctl.inspection.catalogue import VIEWS, inspect, named, options_of, view_of
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View

__all__ = ["VIEWS", "Options", "Table", "View", "inspect", "named", "options_of", "view_of"]
