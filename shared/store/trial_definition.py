"""Define-by-run: what one running trial suggests and sets, answered by its study's sampler and written as it comes.

An answer is in the database before the trial has it, so that an attempt after a lost one gets the same. Attributes are
written with the next answer or `flush`. Used in process, and by a supervisor in its I/O thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from optuna.distributions import CategoricalDistribution, json_to_distribution

from highnoon.shared.domain.errors import LeaseLost, PluginFailed, ServiceUnavailable
from highnoon.shared.domain.space import misnamed_param
from highnoon.shared.domain.trial import Params
from highnoon.shared.objective.defined_trial import SuggestionChannel
from highnoon.shared.objective.trial_pipe import Event
from highnoon.shared.search.suggester import Suggester
from highnoon.shared.store.optuna_trials import NewTrial
from highnoon.shared.store.outages import retry_until_available
from highnoon.shared.store.trial_results import CONSTRAINT

Write = Callable[[NewTrial], None]
"""Adds parameters and attributes to the trial. Raises ServiceUnavailable, and may then be called again."""


class TrialDefinition:
    """Implements `defined_trial.SuggestionChannel`. A call that raised ServiceUnavailable may simply be repeated."""

    def __init__(self, suggester: Suggester, write: Write) -> None:
        self._suggester = suggester
        self._write = write
        self._written: set[str] = set()
        self._noted: set[str] = set()
        self._user_attrs: dict[str, Any] = {}
        self._system_attrs: dict[str, Any] = {}

    def suggest(self, name: str, domain: str) -> float | int:
        """The parameter's value; of choices the index. Raises ValueError for what is no domain, or another one."""
        misnamed = misnamed_param(name)
        if misnamed:
            raise ValueError(f"{misnamed.message} (got {name!r})")
        asked = json_to_distribution(domain)
        value = self._suggester.suggest(name, asked)
        self.flush()
        return int(asked.to_internal_repr(value)) if isinstance(asked, CategoricalDistribution) else value  # type: ignore[return-value]

    def relative_params(self) -> Params:
        """What the sampler chose jointly."""
        return dict(self._suggester.relative_params)

    def set_attr(self, key: str, value: Any) -> None:
        """Kept until `flush`."""
        self._user_attrs[key] = value

    def set_constraint(self, key: str, value: float) -> None:
        """Kept until `flush`."""
        self._system_attrs[CONSTRAINT + key] = value

    def flush(self) -> None:
        """Writes everything that is not in the database yet."""
        suggester = self._suggester
        noted = suggester.system_attrs
        new = NewTrial(
            params=dict(suggester.params),
            distributions={
                name: domain for name, domain in suggester.distributions.items() if name not in self._written
            },
            user_attrs=dict(self._user_attrs),
            system_attrs={**noted, **self._system_attrs},
        )
        if new.distributions or new.user_attrs or self._system_attrs or noted.keys() != self._noted:
            self._write(new)
            self._written.update(new.distributions)
            self._noted = set(noted)
            self._user_attrs.clear()
            self._system_attrs.clear()


def answer_to(question: Event, definition: SuggestionChannel) -> dict[str, Any]:
    """The value that an `ask` event asks for, or why there is none.

    Raises ServiceUnavailable, LeaseLost, PluginFailed.
    """
    try:
        if question["question"] == "relative_params":
            return {"value": definition.relative_params()}
        return {"value": definition.suggest(question["name"], question["domain"])}
    except (ServiceUnavailable, LeaseLost, PluginFailed):
        raise
    except Exception as error:  # whatever Optuna or the sampler finds wrong with what the user's code asks
        return {"error": str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"}


def apply_setting(setting: Event, definition: SuggestionChannel) -> None:
    """Sets the attribute or the constraint of a `set` event."""
    if setting["kind"] == "constraint":
        definition.set_constraint(setting["key"], float(setting["value"]))
    else:
        definition.set_attr(setting["key"], setting["value"])


class PatientDefinition:
    """The same for a trial of this process: waits for a database that is away instead of failing the trial."""

    def __init__(self, definition: TrialDefinition, logger: logging.Logger) -> None:
        self._definition = definition
        self._logger = logger
        self.set_attr = definition.set_attr
        self.set_constraint = definition.set_constraint

    def suggest(self, name: str, domain: str) -> float | int:
        """As TrialDefinition describes it."""
        return retry_until_available(lambda: self._definition.suggest(name, domain), self._logger)

    def relative_params(self) -> Params:
        """As TrialDefinition describes it."""
        return retry_until_available(self._definition.relative_params, self._logger)

    def flush(self) -> None:
        """As TrialDefinition describes it."""
        retry_until_available(self._definition.flush, self._logger)
