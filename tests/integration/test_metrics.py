"""Metrics of a running cluster: they count what the ledger has, and those that dashboard and alerts ask for exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.data_dir import Home
from tests.cluster import Books, Cluster
from tests.conftest import empty_database
from tests.support import eventually

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    home = Home(tmp_path_factory.mktemp("ports"))
    return home.service("coordinator").port, home.service("worker").port


@pytest.fixture(scope="module")
def cluster(stack: Stack, ports: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A coordinator and a node whose supervisors are recycled after three attempts; 14 trials are over."""
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    environ = {
        "HIGHNOON_METRICS_PORT": str(ports[0]),
        "HIGHNOON_WORKER_METRICS_PORT": str(ports[1]),
        "HIGHNOON_METRICS_TOKEN": TOKEN,
        "HIGHNOON_MAX_TASKS_PER_CHILD": "3",
    }
    with empty_database(stack) as url:
        cluster = Cluster(url, stack.redis_url, tmp_path_factory.mktemp("metrics"), environ)
        try:
            cluster.submit_here("good", 10, name="good")
            cluster.submit_here("raises", 4, name="bad", retry_errors=1)
            cluster.start_coordinator()
            cluster.start_worker()
            with cluster.books() as books:
                for name in ("good", "bad"):
                    books.wait_until_over(name)
            yield cluster
        finally:
            cluster.stop()
            print(cluster.logs())


@pytest.fixture(scope="module")
def books(cluster: Cluster) -> Iterator[Books]:
    with cluster.books() as books:
        yield books


def scraped(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = httpx.get(
        f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Bearer {TOKEN}"}, timeout=60
    ).raise_for_status()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def total(samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels, whatever others they have."""
    return sum(number for (known, has), number in samples.items() if known == name and labels.items() <= set(has))


def test_the_node_counts_every_attempt_once_across_recycled_supervisors(
    cluster: Cluster, ports: tuple[int, int], books: Books
) -> None:
    endings = [a.ending for name in ("good", "bad") for a in books.studies.attempts(books.studies.get(name).id)]
    assert len(endings) == 18, "ten good trials, four bad ones with a repetition each"
    eventually(lambda: total(scraped(ports[1]), "highnoon_worker_attempts_total") == 18, 10, what="all are counted")

    node = scraped(ports[1])

    assert value(node, "highnoon_worker_attempts_total", ending="completed", cause="") == 10
    assert value(node, "highnoon_worker_attempts_total", ending="failed", cause="exception") == 8
    assert value(node, "highnoon_worker_retries_total", ending="failed") == 4
    for step in ("sample", "start", "finish"):
        assert value(node, "highnoon_worker_step_seconds_count", step=step) == 18
        assert 0 < value(node, "highnoon_worker_step_seconds_sum", step=step) < 60
    assert value(node, "highnoon_worker_attempt_seconds_count") == 18
    assert value(node, "highnoon_worker_slots") == 2 and value(node, "highnoon_worker_slots_busy") == 0
    assert 1e6 < value(node, "highnoon_worker_memory_bytes") < value(node, "highnoon_worker_memory_limit_bytes")
    assert value(node, "process_resident_memory_bytes") > 1e6


def test_the_coordinator_shows_the_ledger(cluster: Cluster, ports: tuple[int, int]) -> None:
    shown = scraped(ports[0])

    assert value(shown, "highnoon_tickets", study="good", state="closed") == 10
    assert value(shown, "highnoon_attempts", study="bad", ending="failed", cause="exception") == 8
    assert value(shown, "highnoon_retries", study="bad") == 4 and value(shown, "highnoon_retries", study="good") == 0
    assert value(shown, "highnoon_studies", state="finished") == 2
    assert value(shown, "highnoon_best_value", study="good") >= 0
    assert value(shown, "highnoon_slots") == 2 and value(shown, "highnoon_leases") == 0
    assert value(shown, "highnoon_workers", state="active") == 1
    assert value(shown, "highnoon_queue_messages", resource="cpu") == 0
    assert value(shown, "highnoon_service_up", service="redis") == 1
    assert value(shown, "highnoon_service_up", service="postgresql") == 1
    assert value(shown, "highnoon_coordinator_leads") == 1
    assert value(shown, "highnoon_coordinator_tick_seconds_count") > 0
    assert value(shown, "highnoon_coordinator_actions_total", action="dispatch") >= 2
    assert value(shown, "highnoon_coordinator_actions_total", action="close_study") == 2
    assert total(shown, "highnoon_study_fault") == total(shown, "highnoon_coordinator_study_faults_total") == 0


def test_leases_have_an_age_while_trials_run(cluster: Cluster, ports: tuple[int, int], books: Books) -> None:
    name = cluster.submit_here("hangs", 1, name="long")
    eventually(lambda: value(scraped(ports[0]), "highnoon_lease_age_seconds") > 0.5, 30, what="a lease has an age")
    shown = scraped(ports[0])
    assert value(shown, "highnoon_leases") == 1 and 0 <= value(shown, "highnoon_lease_silence_seconds") < 60
    assert value(scraped(ports[1]), "highnoon_worker_slots_busy") == 1
    books.studies.cancel(books.studies.get(name).id)
    books.wait_until_over(name)


def _asked(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:highnoon|process)_[a-z0-9_]+", expression))


def _expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key in ("expr", "query") and isinstance(value, str))
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _expressions(item)


def test_dashboard_and_alerts_ask_for_metrics_that_there_are(cluster: Cluster, ports: tuple[int, int]) -> None:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    exported: set[str] = set()
    for port in ports:
        text = httpx.get(
            f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Bearer {TOKEN}"}, timeout=60
        ).text
        for family in text_string_to_metric_families(text):
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            exported |= {family.name + suffix for suffix in suffixes}

    for source in (dashboard, alerts):
        asked = set().union(*map(_asked, _expressions(source)))
        assert len(asked) > 8 and asked <= exported, asked - exported
    assert all(rule["annotations"]["summary"] and rule["for"] for rule in alerts["groups"][0]["rules"])


def test_the_scrape_configuration_knows_both_jobs_that_the_alerts_name() -> None:
    jobs = {job["job_name"] for job in yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]}
    named = set(re.findall(r'job="([^"]+)"', (MONITORING / "alerts.yml").read_text()))
    assert named <= jobs == {"highnoon-coordinator", "highnoon-workers"}


def test_every_metric_and_every_alert_is_documented(cluster: Cluster, ports: tuple[int, int]) -> None:
    page = (MONITORING.parents[1] / "docs" / "monitoring.md").read_text()
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    documented = set(re.findall(r"`(HighNoon\w+)`", page))
    assert documented == {rule["alert"] for rule in alerts["groups"][0]["rules"]}

    for port in ports:
        text = httpx.get(
            f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Bearer {TOKEN}"}, timeout=60
        ).text
        names = {
            family.name + ("_total" if family.type == "counter" else "")
            for family in text_string_to_metric_families(text)
            if family.name.startswith("highnoon") and not family.name.endswith("_created")
        }
        assert {name for name in names if f"`{name}`" not in page} == set()
