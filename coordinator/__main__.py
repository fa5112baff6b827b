"""`python -m coordinator`: the command line, without the current folder on the import path.

A file of the user's there (`json.py`, `coordinator/`) would hide the module of that name.
"""

import os
import sys

if sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 (pathlib could be hidden itself)
    del sys.path[0]

from highnoon.shared.runtime.extras import run_command

if __name__ == "__main__":
    # The name belongs to a package of the user's where there is one.
    sys.modules.pop("coordinator", None)
    run_command("highnoon.coordinator.cli.main", "coordinator")
