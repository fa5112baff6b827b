"""What the events of a trial's pipe say, checked: reports, curves, settings, questions, a result.

A trial is not trusted: whatever is no such event raises one of WRONG_EVENT. Called by supervisors, and by
`HPOTrialManager` for trials in processes of their own. `trial_pipe` has the list of events.
"""

from __future__ import annotations

import json
import math

from highnoon.shared.domain import result_parsing as readings
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.metric_history import checked_history
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import LONGEST_KEY, RESERVED, Ending
from highnoon.shared.domain.tracebacks import TRACEBACK_LIMIT, shortened, storable
from highnoon.shared.domain.trial import MetricHistory, Outcome, ParamCount, Report, json_number
from highnoon.shared.objective.trial_pipe import Event

MOST_TEXT = 500_000
"""The characters of an attribute's value in JSON: a line has room for it."""

_ENDINGS = {Ending.COMPLETED, Ending.PRUNED, Ending.STOPPED, Ending.FAILED, Ending.CANCELLED}
"""What a trial may say of itself."""

WRONG_EVENT = (InvalidInput, KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""Raised by the readers below."""


def report_of(event: Event) -> Report:
    """The Report in a `report` event. Raises WRONG_EVENT."""
    return readings.report(event["value"], event["step"])


def setting_of(event: Event) -> Event:
    """The attribute or constraint in a `set` event. Raises WRONG_EVENT."""
    key, kind, value = event["key"], event["kind"], event["value"]
    if not isinstance(key, str) or storable(key) != key or key.startswith(RESERVED) or len(key) > LONGEST_KEY:
        raise ValueError(f"an attribute named {key!r}")
    if len(json.dumps(value)) > MOST_TEXT:
        raise ValueError(f"a value of {key!r} of more than {MOST_TEXT:,} characters")
    if kind not in ("user_attr", "constraint"):
        raise ValueError(f"a setting of the kind {kind!r}")
    if kind == "constraint" and (isinstance(value, bool) or math.isnan(float(value))):
        raise ValueError(f"a constraint of {value!r}")
    return {"kind": kind, "key": key, "value": value}


def question_of(event: Event) -> Event:
    """What an `ask` event asks of the sampler. Raises WRONG_EVENT."""
    if event["question"] == "suggest" and not (isinstance(event["name"], str) and isinstance(event["domain"], str)):
        raise ValueError("a parameter without name or domain")
    return {key: event[key] for key in ("question", "name", "domain") if key in event}


def count_of(event: Event) -> ParamCount:
    """The ParamCount in a `params` event. Raises WRONG_EVENT."""
    return readings.param_count(event["total"], event["active"])


def history_of(event: Event) -> MetricHistory:
    """The curves in a `metrics` event. Raises WRONG_EVENT."""
    return checked_history(event["history"])


def outcome_of(event: Event, scoring: Scoring) -> Outcome:
    """The Outcome in a `result` event: what a trial knows of its own end. Raises WRONG_EVENT."""
    given = Outcome.from_json(event["outcome"])
    numbers = [number for number in (given.value, given.loss, given.constraint) if number is not None]
    misses = _misses_of(given, scoring)
    numbers += [*given.values, *misses.values()]
    count = None if given.params_count is None else readings.param_count(given.params_count, given.active_params)
    if given.ending not in _ENDINGS or any(map(math.isnan, numbers)):
        raise ValueError(f"a trial that is {given.ending} with {numbers}")
    is_complete = given.ending is Ending.COMPLETED
    if len(given.values) != (len(scoring.objectives) if is_complete else 0):
        raise ValueError(f"a trial that is {given.ending} with the values {given.values}")
    if is_complete and given.value is None and not given.values:
        raise ValueError("a completed trial without a value")
    if is_complete and not scoring.constraints.keys() <= misses.keys():
        raise ValueError(f"a completed trial with the constraints {sorted(misses)}")
    logged = {name: float(value) for name, value in given.metrics.items()}
    return Outcome(
        ending=given.ending,
        value=None if scoring.objectives else given.value,
        values=given.values,
        misses=misses,
        loss=given.loss,
        params_count=None if count is None else count.total,
        active_params=None if count is None else count.active,
        constraint=given.constraint,
        cause=None if given.cause is None else storable(given.cause)[:40],
        message=shortened(storable(given.message), TRACEBACK_LIMIT),
        traceback=shortened(storable(given.traceback), TRACEBACK_LIMIT),
        metrics={name: json_number(value) or 0.0 for name, value in readings.metrics(logged)[0].items()},
        metric_history=checked_history(given.metric_history),
    )


def _misses_of(given: Outcome, scoring: Scoring) -> dict[str, float]:
    """The study's constraints first, then the ones that the objective has set. Raises WRONG_EVENT."""
    names = [name for name in scoring.constraints if name in given.misses]
    own = [name for name in given.misses if name not in scoring.constraints]
    for name in own:
        setting_of({"key": name, "kind": "constraint", "value": given.misses[name]})
    misses = {name: float(given.misses[name]) for name in (*names, *own)}
    if not all(map(math.isfinite, misses.values())):
        raise ValueError(f"a trial with the constraints {misses}")
    return misses
