"""Settings: precedence, all mistakes at once, secrets masked for people and whole for our own children."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.runtime.settings import Settings, load_settings

URL = "postgresql://highnoon:s3cret@127.0.0.1:5432/highnoon"


def problems_of(environ: dict[str, str], **overrides: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        load_settings(environ, **overrides)
    return {problem.key: str(problem) for problem in caught.value.problems}


def test_nothing_said_gives_the_defaults() -> None:
    settings = load_settings({"PATH": "/bin", "HOME": "/nowhere"})

    assert settings.database_url is None
    assert settings.home == Path.cwd() / ".highnoon"
    assert settings.preload == ("tensorflow", "keras")
    assert (settings.lease_s, settings.renew_s, settings.max_tasks_per_child) == (30.0, 8.0, 200)


def test_an_argument_beats_the_environment_and_none_is_no_argument() -> None:
    environ = {"HIGHNOON_LEASE_S": "60", "HIGHNOON_TICK_S": "2", "HIGHNOON_LOG_LEVEL": "DEBUG"}

    settings = load_settings(environ, lease_s=90.0, tick_s=None)

    assert (settings.lease_s, settings.tick_s, settings.log_level) == (90.0, 2.0, "debug")
    sources = {row.name: row.source for row in settings.describe()}
    assert (sources["lease_s"], sources["tick_s"], sources["renew_s"]) == ("argument", "environment", "default")


def test_constructing_settings_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGHNOON_LEASE_S", "77")

    assert Settings().lease_s == 30.0
    assert load_settings().lease_s == 77.0


@pytest.mark.parametrize(
    ("text", "modules"), [("", ()), ("torch", ("torch",)), (" numpy , keras,", ("numpy", "keras"))]
)
def test_preload_is_a_list_with_commas_and_may_be_empty(text: str, modules: tuple[str, ...]) -> None:
    assert load_settings({"HIGHNOON_PRELOAD": text}).preload == modules


def test_an_empty_variable_is_an_unset_one() -> None:
    settings = load_settings({"HIGHNOON_DATABASE_URL": "", "HIGHNOON_LEASE_S": " "})

    assert (settings.database_url, settings.lease_s) == (None, 30.0)


def test_all_mistakes_are_reported_at_once() -> None:
    problems = problems_of(
        {"HIGHNOON_LEASES": "60", "HIGHNOON_TICK_S": "soon", "HIGHNOON_LOG_LEVEL": "inof"}, drain_s=-1, lease=3
    )

    assert set(problems) == {"HIGHNOON_LEASES", "HIGHNOON_TICK_S", "HIGHNOON_LOG_LEVEL", "drain_s", "lease"}
    assert "Did you mean HIGHNOON_LEASE_S?" in problems["HIGHNOON_LEASES"]
    assert "'soon'" in problems["HIGHNOON_TICK_S"]
    assert "Did you mean info?" in problems["HIGHNOON_LOG_LEVEL"]
    assert "Did you mean lease_s?" in problems["lease"]


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
def test_a_period_is_finite_and_positive(value: str) -> None:
    assert "HIGHNOON_RENEW_S" in problems_of({"HIGHNOON_RENEW_S": value})


def test_two_renewals_fit_into_a_lease() -> None:
    assert "lease_s (10)" in problems_of({"HIGHNOON_LEASE_S": "10"}, renew_s=5.0)["renew_s"]
    assert load_settings({}, lease_s=10.0, renew_s=4.9).renew_s == 4.9


def test_a_shorter_lease_alone_must_not_outrun_the_default_renewal() -> None:
    assert "lease_s (10)" in problems_of({"HIGHNOON_LEASE_S": "10"})["HIGHNOON_RENEW_S"]


def test_a_setting_that_is_missing_is_named_as_a_person_sets_it() -> None:
    metrics = {"HIGHNOON_METRICS_HOST": "0.0.0.0", "HIGHNOON_METRICS_PORT": "9000"}
    assert "is needed where others can reach the metrics" in problems_of(metrics)["HIGHNOON_METRICS_TOKEN"]


def test_a_leader_outlives_its_tick() -> None:
    assert "tick_s (9)" in problems_of({}, tick_s=9.0, leader_ttl_s=9.0)["leader_ttl_s"]


def test_the_short_name_of_the_database_url_is_accepted() -> None:
    assert load_settings({"HIGHNOON_DB_URL": URL}).database_url == load_settings({}, database_url=URL).database_url
    assert load_settings({"HIGHNOON_DB_URL": URL, "HIGHNOON_DATABASE_URL": URL}).database_url is not None


def test_the_database_url_names_its_driver() -> None:
    assert load_settings({}, database_url=URL).database_url == URL.replace("postgresql:", "postgresql+psycopg2:")


def test_addresses_that_cannot_work_are_reported_without_their_password() -> None:
    problems = problems_of(
        {"HIGHNOON_DATABASE_URL": "posgres://me:s3cret@db/x"}, redis_url="http://:s3cret@127.0.0.1:6379"
    )

    assert "Did you mean postgres://?" in problems["HIGHNOON_DATABASE_URL"]
    assert "redis://" in problems["redis_url"]
    assert "s3cret" not in str(problems)


@pytest.mark.parametrize(
    "rest",
    [":s3/cret@h/0", ":9/s3cret@h/0", ":s3#cret@h", ":9#s3cret@h", ":9?s3cret@h", "h:6379x/0", "h/x", "h/0?db=x"],
)
def test_an_address_of_redis_that_cannot_be_read_is_reported_without_its_password(rest: str) -> None:
    problem = problems_of({"HIGHNOON_REDIS_URL": f"redis://{rest}"})["HIGHNOON_REDIS_URL"]
    assert "cannot be read" in problem and "%2F stands for /" in problem and "cret" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://u:p%2Fw@h:6379/2",
        "rediss://h/0?ssl_cert_reqs=none",
        "rediss://h/0?ssl_ca_certs=/run/credentials/worker@1.service/ca.pem",
    ],
)
def test_an_address_of_redis_is_kept_as_it_is(url: str) -> None:
    assert load_settings({"HIGHNOON_REDIS_URL": url}).redis_url == url


def test_a_cluster_has_the_driver_whose_deadlines_and_errors_it_knows() -> None:
    problems = problems_of({}, database_url="postgresql+asyncpg://me@db/x")
    assert "by the driver psycopg2" in problems["database_url"]


def test_two_different_database_urls_are_a_mistake_that_shows_no_password() -> None:
    problems = problems_of({"HIGHNOON_DB_URL": URL, "HIGHNOON_DATABASE_URL": URL + "2"})

    assert "HIGHNOON_DATABASE_URL" in problems["HIGHNOON_DB_URL"]
    assert "s3cret" not in str(problems)


def test_variables_of_other_parts_are_left_alone() -> None:
    load_settings(
        {
            "HIGHNOON_TOKEN": "t",
            "HIGHNOON_DATA_DIR": "/d",
            "HIGHNOON_WEBUI_PORT": "1",
            "HIGHNOON_WEBUI_DEBUG": "false",
            "HIGHNOON_TICKET": "7",
        }
    )


@pytest.mark.parametrize("service", ["HIGHNOON_WEBUI", "HIGHNOON_METRICS", "HIGHNOON"])
def test_variables_that_kubernetes_sets_for_a_service_are_ignored(service: str) -> None:
    address = "tcp://10.0.0.1:80"
    variables = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": address,
        "PORT_80_TCP": address,
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "10.0.0.1",
    }
    settings = load_settings({f"{service}_{name}": value for name, value in variables.items()})
    assert settings.metrics_port == 0
    assert "HIGHNOON_WEBUI_PORTS" in problems_of({"HIGHNOON_WEBUI_PORTS": "80"})


def test_variable_like_one_of_another_part_is_refused_with_its_name() -> None:
    """A dashboard whose tokens were set by a wrong name would be open."""
    problems = problems_of({"HIGHNOON_WEBUI_TOKEN": "t", "HIGHNOON_WEBUI_HOTS": "h", "HIGHNOON_TOKENS": "t"})
    assert {key: problem.partition("Did you mean ")[2] for key, problem in problems.items()} == {
        "HIGHNOON_WEBUI_TOKEN": "HIGHNOON_WEBUI_TOKENS?",
        "HIGHNOON_WEBUI_HOTS": "HIGHNOON_WEBUI_HOSTS?",
        "HIGHNOON_TOKENS": "HIGHNOON_TOKEN?",
    }


def test_every_variable_that_the_dashboard_reads_is_known() -> None:
    source = files("highnoon.webui").joinpath("settings.py").read_text()
    load_settings(dict.fromkeys(re.findall(r"HIGHNOON_WEBUI_[A-Z_]+", source), ""))


def test_describe_masks_secrets() -> None:
    settings = load_settings({"HIGHNOON_DATABASE_URL": URL}, redis_url="redis://:s3cret@127.0.0.1:6379/0")

    shown = {row.name: row.value for row in settings.describe()}
    assert "s3cret" not in str(shown)
    assert "127.0.0.1:5432" in shown["database_url"]
    assert shown["preload"] == "tensorflow,keras"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings({}).lease_s = 1.0


@pytest.mark.parametrize("url", ["sqlite:///ledger.db", "mysql://anna:secret@db/hpo"])
def test_a_cluster_needs_postgresql(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_settings({"HIGHNOON_DATABASE_URL": url})
    assert "needs PostgreSQL" in str(refused.value)
    assert "postgresql://" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_settings_of_earlier_versions_are_accepted_and_have_no_effect() -> None:
    earlier = {"HIGHNOON_TELL_GRACE_S": "5", "HIGHNOON_REAP_S": "2", "HIGHNOON_QUEUES": "cpu", "HIGHNOON_SLOTS": "4"}
    settings = load_settings(earlier)
    assert not {"tell_grace_s", "reap_s", "queues", "slots"} & {row.name for row in settings.describe()}
