"""What Prometheus itself finds in our alerts, its configuration and the dashboard's expressions.

Skips where no promtool is on PATH; Debian's package `prometheus` brings one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROMTOOL = shutil.which("promtool")
HERE = Path(__file__).parent
MONITORING = HERE.parents[1] / "deploy" / "monitoring"
STORIES = HERE / "alerts.test.yml"

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="no promtool is installed (Debian: prometheus)")


def promtool(*words: str | Path) -> str:
    answer = subprocess.run([str(PROMTOOL), *map(str, words)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def expressions(part: Any) -> Iterator[str]:
    """Every `expr` below a part of the dashboard."""
    if isinstance(part, dict):
        if isinstance(part.get("expr"), str):
            yield part["expr"]
        part = list(part.values())
    for item in part if isinstance(part, list) else ():
        yield from expressions(item)


def test_prometheus_accepts_the_alerts_and_its_configuration() -> None:
    promtool("check", "rules", MONITORING / "alerts.yml")
    promtool("check", "config", "--syntax-only", MONITORING / "prometheus.yml")


def test_each_alert_fires_in_its_story_and_is_silent_while_all_is_well() -> None:
    promtool("test", "rules", STORIES)

    stories = [asked for story in yaml.safe_load(STORIES.read_text())["tests"] for asked in story["alert_rule_test"]]
    fired = {asked["alertname"] for asked in stories if asked.get("exp_alerts")}
    silent = {asked["alertname"] for asked in stories if not asked.get("exp_alerts")}
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    assert fired == silent == {rule["alert"] for rule in alerts}


def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    found = list(expressions(json.loads((MONITORING / "grafana-dashboard.json").read_text())))
    assert len(found) > 20
    # As Grafana sends them: with its variables filled in.
    filled = [expr.replace("$study", ".*").replace("$__rate_interval", "1m") for expr in found]
    assert not any("$" in expr for expr in filled)
    rules = [{"record": f"dashboard:{number}", "expr": expr} for number, expr in enumerate(filled)]
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    answer = promtool("check", "rules", tmp_path / "dashboard.yml")

    assert f"{len(found)} rules found" in answer
