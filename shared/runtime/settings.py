"""The settings of this installation: read once when a process starts, checked as a whole, then passed down.

Owns the names and defaults of all settings. Does not own their checks (`setting_checks`), the form of addresses
(`urls`), study files (`study`), or the variables in `READ_ELSEWHERE`. Called by the command lines; everything below
takes a `Settings`. Constructing `Settings` never looks at the environment, only `load_settings` does. Children receive
settings through a pipe (as JSON, secrets included), never through the environment, where user code could read them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from highnoon.shared.domain.correction_hints import seconds_for
from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.validation import sentence_for
from highnoon.shared.runtime import setting_checks as checks
from highnoon.shared.runtime.secret_files import SECRET_FILES, SECRET_VARIABLES, with_secret_files
from highnoon.shared.runtime.urls import masked

PREFIX = "HIGHNOON_"
ALIASES = {"HIGHNOON_DB_URL": "HIGHNOON_DATABASE_URL"}
READ_ELSEWHERE = (
    "HIGHNOON_DATA_DIR",
    "HIGHNOON_REHEARSAL",
    "HIGHNOON_TOKEN",
    "HIGHNOON_WEBUI_VIEWER_TOKEN",
    "HIGHNOON_WEBUI_TOKENS",
    "HIGHNOON_WEBUI_HOSTS",
    "HIGHNOON_WEBUI_HOST",
    "HIGHNOON_WEBUI_PORT",
    "HIGHNOON_WEBUI_FLOWER_URL",
    "HIGHNOON_FLOWER_PASSWORD",
    "HIGHNOON_STUDY",
    "HIGHNOON_TICKET",
    "HIGHNOON_ATTEMPT",
    "HIGHNOON_CHECKPOINT_DIR",
    "HIGHNOON_WORK_DIR",
)
"""Variables that other parts read, or that a trial process is given."""

WITHOUT_EFFECT = (
    *("HIGHNOON_QUEUES", "HIGHNOON_REAP_S", "HIGHNOON_SLOTS", "HIGHNOON_TELL_GRACE_S"),
    *("HIGHNOON_WEBUI_DEBUG", "HIGHNOON_WEBUI_WORKERS"),
)
"""Settings of earlier versions, and of the framework that the guide is from: accepted, so that an installation that
still has them starts."""

_SERVICE_LINK = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)

ARTIFACTS = "artifacts"
"""The folder of a home for artifacts and checkpoints of what `start` runs there."""

LogLevel = Literal["debug", "info", "warning", "error"]
Source = Literal["default", "environment", "argument"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Patience = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(checks.split)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """One setting as `doctor` shows it; secrets in `value` are masked."""

    name: str
    variable: str
    value: str
    source: Source


class Settings(BaseSettings):
    """Everything that may be set. Units are in the names; docs/settings.md has the texts below."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    database_url: str | None = None
    """Address of the cluster's PostgreSQL. Set both addresses, or none to run everything on this machine."""
    redis_url: str | None = None
    """Address of the cluster's Redis."""
    home: Path = Path(".highnoon")
    """Where services, logs and working folders of this machine are. It belongs to one database."""
    log_level: Annotated[LogLevel, BeforeValidator(checks.lowered)] = "info"
    """`debug`, `info`, `warning` or `error`."""

    lease_s: Seconds = 30.0
    """How long a worker may be silent before its trial is given to another one."""
    renew_s: Seconds = 8.0
    """How often a running trial's lease is renewed; less than half of a lease."""
    presence_s: Seconds = 5.0
    """How often a node reports that it is there, and the coordinator compares the failures of nodes. After four
    silences its slots do not count."""
    tick_s: Seconds = 1.0
    """How often the coordinator looks at the ledger when no notification arrives and no lease expires."""
    leader_ttl_s: Seconds = 5.0
    """How long a silent coordinator leads before another one takes over; more than a tick."""
    redispatch_s: Seconds = 60.0
    """After how long a message that no worker took is sent again."""
    drain_s: Patience = 60.0
    """How long running trials may go on after the first signal."""
    kill_grace_s: Patience = 3.0
    """How long a trial process has to end by itself before each stronger signal."""

    max_tasks_per_child: Annotated[int, Field(ge=1)] = 200
    """After how many trials a slot's supervisor is replaced by a fresh one."""
    preload: Names = Field(default_factory=checks.installed_to_preload)
    """Modules that a worker imports once, for all its trials; by default whichever of the two is installed."""
    objectives: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(checks.split)] = None
    """Which objectives a worker may run, with commas: `/srv/objectives/*.py`, `recipes.*`; [code.md](code.md)
    explains."""
    cluster_key: str | None = None
    """What signs bundles and proves them to workers: 16 characters or more, the same everywhere."""
    notify_hosts: Names = ()
    """Hosts that studies may have [notifications](operations.md#notifications) sent to, with commas."""
    notify_key: str | None = None
    """Signs the notifications."""
    bundle_limit_bytes: Annotated[int, Field(ge=1)] = 10_000_000
    """How large a bundle may be."""
    dispatch_buffer: Annotated[int, Field(ge=0)] = 16
    """At most so many messages per slot wait in Redis beyond the free slots: two seconds of work, none of trials that
    take half a minute once their study has its share of the slots, at most 4 until 32 trials of the study have
    ended."""
    quarantine_after: Annotated[int, Field(ge=0)] = 5
    """Failures in a row before a node that fails where others do not is put into quarantine; 0 for never."""
    confine_trials: Annotated[Literal["off", "auto", "require"], BeforeValidator(checks.lowered)] = "off"
    """Whether a trial's process is kept from other files, ports and processes than its own: `off`, `auto` (as far as
    the kernel can), `require`; [code.md](code.md#confined-trials)."""
    trial_paths: Names = ()
    """Files and folders that a confined trial may read and write beside its own, with commas."""
    trial_ports: Annotated[tuple[Port, ...], NoDecode, BeforeValidator(checks.split)] = (80, 443)
    """TCP ports that a confined trial may connect to, with commas."""
    artifacts_url: str | None = None
    """Where [artifacts and checkpoints](artifacts.md) are stored: a folder that all machines reach, or an address of
    fsspec. Without addresses of services it is the folder `artifacts` of the home; on a cluster nothing is stored
    without it."""
    artifacts_options: str | None = None
    """What fsspec needs for that address, as a JSON object."""
    artifact_limit_bytes: Annotated[int, Field(ge=1)] = 5_000_000_000
    """How large all artifacts of one trial may be."""
    checkpoint_s: Patience = 60.0
    """How often a running trial's checkpoint is stored, at a report. 0: at every report."""
    log_limit_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    """How much of what a trial prints is kept in its file."""
    log_tail_bytes: Annotated[int, Field(ge=0)] = 4_000
    """How much of its end is kept in the ledger, for `logs`."""

    metrics_port: Port = 0
    """Where the coordinator shows its [metrics](monitoring.md); 0 for nowhere."""
    worker_metrics_port: Port = 0
    """The same for a worker node. Two nodes on one machine need two ports."""
    metrics_host: str = "127.0.0.1"
    """The address that both listen on. Beyond loopback they need a token."""
    metrics_token: str | None = None
    """What Prometheus must send as bearer token, 16 characters or more."""

    _sources: dict[str, Source] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller passes: the environment comes in through `load_settings`, once."""
        return (init_settings,)

    _check_database_url = field_validator("database_url")(checks.is_a_postgresql)
    _check_redis_url = field_validator("redis_url")(checks.is_a_redis)
    _check_cluster_key = field_validator("cluster_key")(checks.cannot_be_guessed)
    _check_notify_key = field_validator("notify_key")(checks.receivers_need_a_signature)
    _check_artifacts_url = field_validator("artifacts_url")(checks.is_a_place_for_files)
    _check_artifacts_options = field_validator("artifacts_options")(checks.is_a_json_object)
    _check_home = field_validator("home")(checks.absolute)
    _check_renew_s = field_validator("renew_s")(checks.two_renewals_fit_into_a_lease)
    _check_leader_ttl_s = field_validator("leader_ttl_s")(checks.a_leader_outlives_its_tick)
    _check_metrics_token = field_validator("metrics_token")(checks.others_need_a_token)

    @property
    def artifacts_place(self) -> str | None:
        """Where artifacts and checkpoints are stored: what is set; on a machine of its own its folder; else nowhere."""
        return self.artifacts_url or (str(self.home / ARTIFACTS) if self.database_url is None else None)

    def describe(self) -> tuple[SettingRow, ...]:
        """Every setting with its value (secrets masked) and where it came from, for people."""
        return tuple(
            SettingRow(
                name=name,
                variable=_variable(name),
                value=_shown(name, getattr(self, name)),
                source=self._sources.get(name, "default"),
            )
            for name in Settings.model_fields
        )


SECRETS = frozenset(name for name in Settings.model_fields if f"{PREFIX}{name.upper()}" in SECRET_VARIABLES)


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Arguments over environment over defaults; None overrides nothing. Raises InvalidInput with all problems."""
    environ = os.environ if environ is None else environ
    environ = {k: v for k, v in environ.items() if k.startswith(PREFIX) and not is_service_link(k, v)}
    environ, problems = with_secret_files(environ)
    known = (*map(_variable, Settings.model_fields), *ALIASES, *SECRET_FILES, *READ_ELSEWHERE, *WITHOUT_EFFECT)
    problems += [*_unknown(environ, known), *_contradictions(environ), *_unknown(overrides, Settings.model_fields)]
    given = _from_environment(environ)
    arguments = {k: v for k, v in overrides.items() if v is not None and k in Settings.model_fields}
    sources: dict[str, Source] = {**dict.fromkeys(given, "environment"), **dict.fromkeys(arguments, "argument")}
    try:
        settings = Settings(**{**given, **arguments})
    except ValidationError as error:
        problems += _problems(error, sources)
    if problems:
        raise InvalidInput("settings", problems)
    settings._sources.update(sources)
    return settings


def is_service_link(name: str, value: str) -> bool:
    """Whether it is one that Kubernetes sets in every pod beside a Service, such as one named `highnoon-webui`."""
    if name.endswith("PORT") and re.match("(tcp|udp|sctp)://", value):
        return True
    return _SERVICE_LINK.fullmatch(name) is not None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The environment's values by field. An empty variable is not set, except the one that names what is preloaded."""
    source = EnvSettingsSource(Settings)
    source.env_vars = {
        ALIASES.get(name, name).lower(): value
        for name, value in environ.items()
        if name not in WITHOUT_EFFECT and (value.strip() or name == _variable("preload"))
    }
    return source()


def _unknown(names: Iterable[str], known: Iterable[str]) -> list[Problem]:
    known = sorted(known)
    return [
        Problem(key=name, message="no such setting", hint=nearest(name, known))
        for name in sorted(names)
        if name not in known
    ]


def _contradictions(environ: Mapping[str, str]) -> list[Problem]:
    return [
        Problem(key=alias, message=f"has another value than {name}", hint="Set only one of the two.")
        for alias, name in ALIASES.items()
        if environ.get(alias) and environ.get(name) and environ[alias] != environ[name]
    ]


def _problems(error: ValidationError, sources: Mapping[str, Source]) -> list[Problem]:
    return [_problem(dict(detail), sources) for detail in error.errors(include_url=False)]


def _problem(detail: dict[str, Any], sources: Mapping[str, Source]) -> Problem:
    name = str(detail["loc"][0]) if detail["loc"] else "settings"
    return Problem(
        key=name if sources.get(name) == "argument" else _variable(name),
        message=sentence_for(detail["type"], detail.get("ctx", {})) or detail["msg"].removeprefix("Value error, "),
        value=_shown(name, detail["input"]) if name in SECRETS else detail["input"],
        hint=nearest(str(detail["input"]), get_args(LogLevel)) if name == "log_level" else _hint(name, detail),
    )


def _hint(name: str, detail: dict[str, Any]) -> str:
    in_seconds = seconds_for(detail["input"]) if name.endswith("_s") else ""
    return in_seconds or str(detail.get("ctx", {}).get("hint", ""))


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _shown(name: str, value: object) -> str:
    if value is None:
        return "not set"
    if name in SECRETS:
        return masked(str(value)) if name.endswith("_url") else "***"
    return ",".join(map(str, value)) or "nothing" if isinstance(value, tuple) else str(value)
