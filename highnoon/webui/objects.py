"""Studies and attempts as the API tells them to programs. Trials are in `exports`, where files want them as well."""

from __future__ import annotations

from typing import Any

from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.webui.studies import Study


def study_object(study: Study) -> dict[str, Any]:
    """A study for programs."""
    record = study.record
    return {
        "id": study.id,
        "name": study.name,
        "state": study.state,
        "reason": record.stop_reason if record else None,
        "direction": study.direction,
        "trials": study.total,
        "complete": study.complete,
        "pruned": study.pruned,
        "failed": study.failed,
        "running": study.running,
        "waiting": study.waiting,
        "best_value": study.best,
        "submitted_at": record.submitted_at if record else None,
        "started_at": record.started_at if record else None,
        "ended_at": record.ended_at if record else None,
    }


def attempt_object(attempt: AttemptRecord) -> dict[str, Any]:
    """An attempt for programs, without its log."""
    took = None if attempt.ended_at is None else attempt.ended_at - attempt.started_at
    return {
        "attempt": attempt.attempt,
        "trial": attempt.trial_number,
        "host": attempt.host,
        "pid": attempt.pid,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "duration_s": took,
        "ending": str(attempt.ending) if attempt.ending else None,
        "cause": attempt.cause,
        "message": attempt.message,
        "exit_status": attempt.exit_status,
        "signal": attempt.signal,
        "peak_rss_bytes": attempt.peak_rss_bytes,
        "memory": attempt.memory.to_json() if attempt.memory else None,
        "log_path": attempt.log_path,
    }
