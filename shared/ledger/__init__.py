"""The ledger: our own tables beside Optuna's, and every SQL statement that touches them.

PostgreSQL is the truth of the whole system. One file per role: `schema` the tables and the clock, `database` the
connection, `leases` what a holder may do, `losses` what becomes of a ticket whose holder is gone, `studies` what
people do, `control` what the coordinator does, `nodes` presence and leadership, `bundles` archives of code, `peaks`
what trials took of memory, `streaks` how nodes fail, `work` whether there is any, `overview` what a dashboard shows.
Stores here decide nothing; decisions are made in `shared.lease` and `coordinator.planner`.
"""

from shared.ledger.bundles import Bundles
from shared.ledger.control import Control
from shared.ledger.database import Database
from shared.ledger.leases import Leases
from shared.ledger.losses import Losses
from shared.ledger.nodes import Nodes
from shared.ledger.overview import Overview
from shared.ledger.peaks import Peaks
from shared.ledger.streaks import Streaks
from shared.ledger.studies import Studies
from shared.ledger.work import Work

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
