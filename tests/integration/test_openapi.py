"""Whatever a program sends to the API, in and out of what its description allows: nothing is a fault of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from highnoon.coordinator.local.stack import Stack
from tests.conftest import empty_database
from tests.made_up import make_study
from tests.web import TOKEN, dashboard

_REAL = {"study": "digits", "number": 7, "worker": "w1"}


@pytest.fixture(scope="module")
def api(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    environ = {"HIGHNOON_TOKEN": TOKEN}
    with empty_database(stack) as url:
        make_study(url, "digits", n_trials=30, done=20, running=2)
        with dashboard(url, tmp_path_factory.mktemp("openapi"), environ=environ) as address:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            described = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=headers)
            # The stream of events has no end.
            yield described.exclude(path="/api/hpo/events")


@schemathesis.hook
def map_path_parameters(_context: Any, path_parameters: dict[str, Any]) -> dict[str, Any]:
    """Every second request is about something that there is."""
    if len(repr(path_parameters)) % 2:
        return path_parameters
    return {name: _REAL.get(name, given) for name, given in (path_parameters or {}).items()}


def test_nothing_makes_the_api_fail(api: schemathesis.BaseSchema) -> None:
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 15
    for operation in operations:
        _try(operation)


def _try(operation: Any) -> None:
    @settings(max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def attempt(case: schemathesis.Case) -> None:
        response = case.call(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        case.validate_response(response, checks=[not_a_server_error])
        assert response.status_code != 401, "every request carried the token"

    attempt()
