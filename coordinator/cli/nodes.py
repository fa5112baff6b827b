"""Commands about machines and services: workers, drain, doctor, and Flower, which `start` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.answers import print_json, print_table, tell
from highnoon.coordinator.cli.arguments import AsJson, mistake
from highnoon.coordinator.cli.store_access import ledger
from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.terminal import open_console

if TYPE_CHECKING:
    from highnoon.shared.runtime.settings import Settings
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.nodes import Worker

_PRESENCE_MISSES = 4
"""As the coordinator counts: who missed so many beats is not there."""

WorkerName = Annotated[str, typer.Argument(help="The beginning of its id, or its host.", metavar="WORKER")]


def workers(json: AsJson = False) -> None:
    """List the nodes that are there, and what runs on each.

    Example: python -m coordinator workers
    """
    from highnoon.coordinator.cli.access import why_nobody_coordinates
    from highnoon.coordinator.cli.deployment_mode import is_embedded
    from highnoon.coordinator.cli.workers_table import workers_object, workers_table
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store.overview import Overview

    settings = load_settings()
    with ledger() as access:
        present = _present(access, settings)
        running = Overview(access.database).running()
    if json:
        print_json(workers_object(present, running))
    elif present:
        print_table(workers_table(present, running))
    else:
        embedded = settings.database_url is None and is_embedded(settings)
        begin = "its worker starts in a few seconds" if embedded else "python -m workers start --slots 2 starts one"
        tell(f"no worker is there; {why_nobody_coordinates(settings) or begin}")


def drain(worker: WorkerName) -> None:
    """Let a node take nothing new, and end.

    Running trials have HIGHNOON_DRAIN_S seconds to end; what still runs then is handed back, and costs its study
    nothing. It is for nodes of a cluster; start the node again to have it back.

    Example: python -m coordinator drain node-a
    """
    from highnoon.coordinator.cli.deployment_mode import is_embedded
    from highnoon.coordinator.cli.workers_table import the_worker
    from highnoon.shared.domain.states import WorkerState
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store.nodes import Nodes
    from highnoon.shared.store.overview import Overview

    settings = load_settings()
    with ledger() as access:
        chosen = the_worker(worker, _present(access, settings))
        if settings.database_url is None and is_embedded(settings):
            hint = "Pause its studies: python -m coordinator pause STUDY."
            raise mistake("WORKER", "belongs to coordinator start, which would start it again", worker, hint)
        Nodes(access.database).mark(chosen.id, WorkerState.DRAINING)
        count = sum(attempt.worker_id == chosen.id for attempt in Overview(access.database).running())
    tell(f"worker {chosen.id[:8]} on {chosen.host} drains: {count} trials run there, then it ends")


def reinstate(worker: WorkerName) -> None:
    """Take a node back from quarantine; what it did before is forgiven.

    A node that fails at studies at which others succeed gets nothing more (HIGHNOON_QUARANTINE_AFTER failures in a
    row, by default 5; 0 for never). `workers` says why. Mend it first.

    Example: python -m coordinator reinstate node-a
    """
    from highnoon.coordinator.cli.workers_table import the_worker
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store.nodes import Nodes

    with ledger() as access:
        chosen = the_worker(worker, _present(access, load_settings()))
        if not Nodes(access.database).reinstate(chosen.id):
            raise mistake("WORKER", f"is {chosen.state}; only one in quarantine can be taken back", worker)
    tell(f"worker {chosen.id[:8]} on {chosen.host} gets trials again")


def doctor(json: AsJson = False) -> None:
    """Print each setting with its source, and check every service.

    Example: python -m coordinator doctor
    """
    from highnoon.coordinator.cli import doctor as doctors
    from highnoon.shared.runtime.settings import load_settings

    settings = load_settings()
    checks = doctors.examine(settings)
    if json:
        print_json(doctors.as_object(settings, checks))
    else:
        doctors.show(settings, checks, open_console())
    raise typer.Exit(Exit.OK if all(check.ok for check in checks) else Exit.SERVICE)


def flower(
    port: Annotated[int, typer.Option()] = 5555,
    address: Annotated[str, typer.Option()] = "127.0.0.1",
) -> None:
    """Run Flower on HIGHNOON_REDIS_URL, behind the password in HIGHNOON_HOME."""
    from highnoon.coordinator.local.flower import flower_login, run_flower
    from highnoon.shared.domain.errors import InvalidInput, Problem
    from highnoon.shared.runtime.settings import load_settings

    settings = load_settings()
    if settings.redis_url is None:
        raise InvalidInput("environment", [Problem(key="HIGHNOON_REDIS_URL", message="is not set")])
    run_flower(settings.redis_url, flower_login(settings.home), port=port, address=address)


def _present(access: Access, settings: Settings) -> list[Worker]:
    from highnoon.shared.store.nodes import Nodes

    return Nodes(access.database).workers(silent_for_s=settings.presence_s * _PRESENCE_MISSES)
