"""Every state in the system, with the transitions that lead to it. Owns no data and does no I/O."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from enum import StrEnum as StrEnum
else:
    from backports.strenum import StrEnum as StrEnum


RESERVED = "highnoon:"
"""The prefix of attributes of trials that are ours."""

TICKET = "highnoon:ticket"
ENDING = "highnoon:ending"
CAUSE = "highnoon:cause"
MESSAGE = "highnoon:message"
TRACEBACK = "highnoon:traceback"
"""Attributes of a trial: whose it is and how it ended."""

LONGEST_KEY = 200
"""Of an attribute's name. Optuna's columns hold 512 characters, with a prefix for constraints."""


class StudyState(StrEnum):
    """running <-> paused; both -> cancelling -> cancelled; running -> finished (-> running by more trials)."""

    RUNNING = "running"
    """Submitted, or resumed. Tickets are dispatched."""
    PAUSED = "paused"
    """A person paused it. Running attempts end by themselves, nothing new is started."""
    CANCELLING = "cancelling"
    """A person cancelled it; attempts still run until their next renewal."""
    FINISHED = "finished"
    """All tickets are closed or cancelled; the reason is the limit that ended it."""
    CANCELLED = "cancelled"
    """Was cancelling, and its last attempt is over."""


GIVEN_UP = frozenset({StudyState.CANCELLING, StudyState.CANCELLED})
"""Nothing more is run of such a study."""


class TicketState(StrEnum):
    """waiting -> queued -> running -> closed; running -> waiting by reap, release or retry."""

    WAITING = "waiting"
    """Made by submit, or given back by reap, release or retry."""
    QUEUED = "queued"
    """Dispatched: a RunTrial message is, or was, on Redis."""
    RUNNING = "running"
    """One worker holds attempt n until `lease_expires_at`, and its Optuna trial is RUNNING."""
    CLOSED = "closed"
    """The outcome is stored, and the Optuna trial has ended. Counts for n_trials."""
    CANCELLED = "cancelled"
    """Given up before an attempt ended; does not count for n_trials."""


class WorkerState(StrEnum):
    """active -> draining -> gone; active -> gone when presence ends."""

    ACTIVE = "active"
    DRAINING = "draining"
    QUARANTINED = "quarantined"
    GONE = "gone"


class Ending(StrEnum):
    """How an attempt ended. `design` section 3 has the table of what each does to ticket and Optuna trial."""

    COMPLETED = "completed"
    """The objective returned a number."""
    PRUNED = "pruned"
    """The objective raised TrialPruned."""
    STOPPED = "stopped"
    """It did not fit into memory by its own doing, or into a hard budget, or its objective raised TrialStopped."""
    FAILED = "failed"
    """The objective raised, returned nonsense, exited or crashed by itself."""
    TIMED_OUT = "timed_out"
    """Over `trial_timeout`, or no progress for `stall_timeout`."""
    KILLED = "killed"
    """A signal from outside ended the trial process (infrastructure)."""
    LOST = "lost"
    """The lease ran out or its supervisor died (infrastructure)."""
    RELEASED = "released"
    """Handed back by a draining worker; not charged."""
    CANCELLED = "cancelled"
    """A person cancelled the study while it ran."""


class Cause(StrEnum):
    """Why an attempt ended so: a class for machines. Stored rows may have others, of newer versions."""

    # Memory, as docs/memory.md describes them.
    MEMORY_LIMIT = "memory_limit"
    MEMORY_GUARD = "memory_guard"
    MEMORY_FORECAST = "memory_forecast"
    """It took nothing: what it would have taken was known before."""
    OOM_KERNEL = "oom_kernel"
    OUT_OF_MEMORY = "out_of_memory"
    OOM_GPU = "oom_gpu"
    SWAP = "swap"
    OOM_NEIGHBOUR = "oom_neighbour"
    """It was within its share of memory when a neighbour filled the node: tried again, alone."""

    # What its objective did.
    PRUNER = "pruner"
    SEGMENT_END = "segment_end"
    """A completed trial that was ended at a report, so that another one goes on from its checkpoint."""
    STOPPED = "stopped"
    """The objective raised TrialStopped of its own accord."""
    PARAM_BUDGET = "param_budget"
    """Larger than a hard budget."""
    EXCEPTION = "exception"
    INVALID_RESULT = "invalid_result"
    NO_PARAM_COUNT = "no_param_count"
    EXITED = "exited"
    CRASHED = "crashed"
    """By a signal that a process brings upon itself."""
    TIMEOUT = "timeout"
    STALLED = "stalled"

    # Why its objective could not run.
    OBJECTIVE = "objective"
    """It cannot be loaded."""
    OBJECTIVE_REFUSED = "objective_refused"
    BUNDLE_REFUSED = "bundle_refused"
    NO_STORE = "no_store"
    CHECKPOINT = "checkpoint"
    """What its training was to begin with could not be fetched."""
    VERSION = "version"
    """Its process speaks another version of the pipe's protocol."""
    PROTOCOL = "protocol"
    """Its process sent something that is no event."""
    REFUSED = "refused"
    """The database refused what it reported or returned."""

    # People and infrastructure.
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """By Ctrl-C or SIGTERM, in process: a grid visits its point again."""
    DRAIN = "drain"
    DISK = "disk"
    """Handed back by a node whose disk takes nothing more."""
    PLUGIN = "plugin"
    """The study's own sampler failed while the trial asked it: handed back until it answers again."""
    RESTORE = "restore"
    LOST = "lost"
    SIGNAL = "signal"
    """By a signal from outside."""
    NOT_BEGUN = "not_begun"
    """Its process ended before it had loaded the objective."""


class TrialState(StrEnum):
    """Optuna's states, by their names. A trial never leaves COMPLETE, PRUNED or FAIL."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"


INFRASTRUCTURE_ENDINGS = frozenset({Ending.KILLED, Ending.LOST, Ending.RELEASED})
"""Endings that have nothing to do with the parameters: the ticket is given back and tried again."""

WENT_WRONG = frozenset({Ending.FAILED, Ending.TIMED_OUT, Ending.KILLED, Ending.LOST})
"""Endings that objective or infrastructure may be at fault for; a stop for memory has its own remedies."""

RETRIABLE = WENT_WRONG | {Ending.STOPPED}
"""Endings after which a person may ask for another attempt with the same parameters."""

OPTUNA_STATE: dict[Ending, TrialState] = {
    Ending.COMPLETED: TrialState.COMPLETE,
    Ending.PRUNED: TrialState.PRUNED,
    Ending.STOPPED: TrialState.PRUNED,
    Ending.FAILED: TrialState.FAIL,
    Ending.TIMED_OUT: TrialState.FAIL,
    Ending.KILLED: TrialState.FAIL,
    Ending.LOST: TrialState.FAIL,
    Ending.RELEASED: TrialState.FAIL,
    Ending.CANCELLED: TrialState.FAIL,
}
"""The state in which each ending leaves the Optuna trial."""


MEMORY_CAUSES = frozenset(
    {
        *(Cause.MEMORY_LIMIT, Cause.MEMORY_GUARD, Cause.MEMORY_FORECAST, Cause.OOM_KERNEL, Cause.OUT_OF_MEMORY),
        *(Cause.OOM_GPU, Cause.SWAP, Cause.OOM_NEIGHBOUR),
    }
)
"""Causes of attempts that memory ended."""

_CAUSES = frozenset(Cause)


def counted_cause(cause: str | None) -> str:
    """A cause by which attempts may be counted: one of ours, or `other` for what a trial's process has made up."""
    return "other" if cause and cause not in _CAUSES else cause or ""


def known_ending(stored: str | None) -> Ending | None:
    """The ending in a stored row; None before there is one, and for an ending that a newer version wrote."""
    try:
        return None if stored is None else Ending(stored)
    except ValueError:
        return None
