"""`python -m coordinator`: the command line, without the current folder on the import path.

A file of the user's there (`json.py`, `coordinator/`) would hide the module of that name.
"""

import os
import sys

if sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 (pathlib could be hidden itself)
    del sys.path[0]

from highnoon.coordinator.cli.main import main

if __name__ == "__main__":
    main()
