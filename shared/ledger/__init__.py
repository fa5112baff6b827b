"""The ledger: our own tables beside Optuna's, and every SQL statement that touches them.

PostgreSQL is the truth of the whole system. One file per role: `schema` the tables and the clock, `database` the
connection, `leases` what a holder may do, `losses` what becomes of a ticket whose holder is gone, `studies` what
people do, `control` what the coordinator does, `nodes` presence and leadership, `bundles` archives of code, `peaks`
what trials took of memory, `streaks` how nodes fail, `work` whether there is any, `overview` what a dashboard shows.
Stores here decide nothing; decisions are made in `shared.lease` and `coordinator.planner`.
"""

from highnoon.shared.ledger.bundles import Bundles
from highnoon.shared.ledger.control import Control
from highnoon.shared.ledger.database import Database
from highnoon.shared.ledger.leases import Leases
from highnoon.shared.ledger.losses import Losses
from highnoon.shared.ledger.nodes import Nodes
from highnoon.shared.ledger.overview import Overview
from highnoon.shared.ledger.peaks import Peaks
from highnoon.shared.ledger.streaks import Streaks
from highnoon.shared.ledger.studies import Studies
from highnoon.shared.ledger.work import Work

__all__ = [
    "Bundles",
    "Control",
    "Database",
    "Leases",
    "Losses",
    "Nodes",
    "Overview",
    "Peaks",
    "Streaks",
    "Studies",
    "Work",
]
