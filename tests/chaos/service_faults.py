"""Faults of the services and of what comes through them: Redis, PostgreSQL, messages, other clients."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from functools import wraps
from urllib.parse import quote

import optuna
import psycopg2
import redis

from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.runtime.broker import Broker
from tests.chaos.clients import OUTAGE, connected, optuna_storage
from tests.chaos.faults import STUDY, Fault, Hit, fault
from tests.chaos.world import World
from tests.rubbish import RUBBISH, envelope


def fault_of(service: str) -> Callable[[Fault], Fault]:
    """A fault that finds nothing to hit while another one keeps this service away."""

    def decorated(act: Fault) -> Fault:
        @wraps(act)
        def act_if_there(world: World, chance: random.Random) -> Hit | None:
            return None if service in world.frozen else act(world, chance)

        return fault(act_if_there)

    return decorated


@fault_of("redis")
def restart_redis(world: World, chance: random.Random) -> Hit | None:
    away_s = chance.uniform(0.1, 3.0)
    world.crash("redis", signal.SIGKILL, away_s)
    return Hit(lasts_s=away_s)


@fault_of("redis")
def flush_redis(world: World, chance: random.Random) -> Hit | None:
    with _redis(world) as client:
        client.flushall()
    return Hit()


@fault_of("redis")
def kill_redis_clients(world: World, chance: random.Random) -> Hit | None:
    with _redis(world) as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind)
    return Hit()


@fault_of("redis")
def freeze_redis(world: World, chance: random.Random) -> Hit | None:
    seconds = chance.uniform(1.0, 8.0)
    world.freeze("redis", seconds)
    return Hit(lasts_s=seconds)


@fault_of("redis")
def change_redis_password(world: World, chance: random.Random) -> Hit | None:
    """No client gets in for a while."""
    seconds = chance.uniform(1.0, 5.0)
    other = "another-password"
    with _redis(world) as client:
        before = client.config_get("requirepass")["requirepass"]
        client.config_set("requirepass", other)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")
    world.frozen.add("redis")

    def back() -> None:
        url = world.cluster.redis_url.replace(f":{quote(before)}@", f":{other}@")
        with redis.Redis.from_url(url, socket_timeout=5) as client:
            client.config_set("requirepass", before)
        world.frozen.discard("redis")

    world.later(seconds, back)
    return Hit(lasts_s=seconds)


@fault_of("redis")
def fill_redis(world: World, chance: random.Random) -> Hit | None:
    """Its memory is full, and it evicts nothing: it takes no further message."""
    seconds = chance.uniform(1.0, 5.0)
    with _redis(world) as client:
        client.config_set("maxmemory", "1")
    world.frozen.add("redis")

    def back() -> None:
        with _redis(world) as client:
            client.config_set("maxmemory", "0")
        world.frozen.discard("redis")

    world.later(seconds, back)
    return Hit(lasts_s=seconds)


@fault_of("postgres")
def restart_postgres(world: World, chance: random.Random) -> Hit | None:
    """An immediate shutdown: no session ends in order, and recovery follows."""
    away_s = chance.uniform(0.1, 2.0)
    world.crash("postgres", signal.SIGQUIT, away_s)
    return Hit(lasts_s=away_s)


@fault_of("postgres")
def freeze_postgres(world: World, chance: random.Random) -> Hit | None:
    seconds = chance.uniform(1.0, 8.0)
    world.freeze("postgres", seconds)
    return Hit(lasts_s=seconds)


@fault_of("postgres")
def terminate_backends(world: World, chance: random.Random) -> Hit | None:
    """Sessions end in the middle of whatever they do."""
    with closing(connected(world.cluster.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    return Hit()


@fault_of("postgres")
def use_up_connections(world: World, chance: random.Random) -> Hit | None:
    """Other clients hold every connection that PostgreSQL allows; ours are ended and find no place."""
    seconds = chance.uniform(1.0, 4.0)
    held = [connected(world.cluster.database_url)]
    ours = [connection.info.backend_pid for connection in held]
    with held[0].cursor() as cursor, suppress(psycopg2.OperationalError):
        while True:
            cursor.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where backend_type = 'client backend' and pid <> all(%s)",
                (ours,),
            )
            held.append(connected(world.cluster.database_url))
            ours.append(held[-1].info.backend_pid)
    world.frozen.add("postgres")

    def back() -> None:
        for connection in held:
            connection.close()
        world.frozen.discard("postgres")

    world.later(seconds, back)
    return Hit(lasts_s=seconds)


@fault_of("postgres")
def make_postgres_read_only(world: World, chance: random.Random) -> Hit | None:
    """As a standby, or a server that protects a full disk."""
    seconds = chance.uniform(1.0, 4.0)

    def switch(statement: str) -> None:
        writable = "-c default_transaction_read_only=off"
        with closing(connected(world.cluster.database_url, settings=writable)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                cursor.execute("select pg_reload_conf()")

    switch("alter system set default_transaction_read_only = on")
    world.frozen.add("postgres")

    def back() -> None:
        switch("alter system reset default_transaction_read_only")
        world.frozen.discard("postgres")

    world.later(seconds, back)
    return Hit(lasts_s=seconds)


@fault_of("redis")
def duplicate_messages(world: World, chance: random.Random) -> Hit | None:
    slots = world.slots()
    ticket = chance.choice(slots).ticket if slots and chance.random() < 0.5 else chance.randrange(1, 60)
    with Broker(world.cluster.redis_url) as broker:
        broker.publish([RunTrial(study=STUDY, ticket=ticket)] * 100, resource="cpu")
    return Hit()


@fault_of("redis")
def rubbish(world: World, chance: random.Random) -> Hit | None:
    newer = json.dumps(envelope({"study": STUDY, "ticket": chance.randrange(1, 60), "version": 7})).encode()
    foreign = json.dumps(envelope({"study": "unknown", "ticket": 10**9, "version": 1})).encode()
    messages = [*RUBBISH.values(), newer, foreign]
    chance.shuffle(messages)
    with _redis(world) as client:
        client.lpush("highnoon.cpu", *messages)
    return Hit()


@fault_of("postgres")
def foreign_trial(world: World, chance: random.Random) -> Hit | None:
    """An ordinary Optuna script joins, with a parameter of its own. It ends its trial, whatever happens meanwhile."""
    if world.study_is_locked:
        # Optuna tries for ten seconds, for which the timer that ends the lock would not come.
        return None
    storage = optuna_storage(world.cluster.database_url)
    value = chance.random()
    study = optuna.load_study(study_name=STUDY, storage=storage)
    trial = study.ask()

    def end() -> None:
        try:
            trial.suggest_categorical("side", ["left", "right"])
            study.tell(trial, value, skip_if_finished=True)
        except OUTAGE:
            world.later(0.3, end)
        else:
            storage.engine.dispose()

    end()
    return Hit()


@fault_of("postgres")
def locked_ticket(world: World, chance: random.Random) -> Hit | None:
    """A client hangs in its transaction, with the lock of Optuna's study."""
    if world.study_is_locked:
        return None
    connection = connected(world.cluster.database_url)
    seconds = chance.uniform(0.5, 4.0)
    with connection.cursor() as cursor, suppress(psycopg2.Error):
        cursor.execute("select 1 from studies where study_name = %s for update", (STUDY,))
    world.study_is_locked = True

    def unlock() -> None:
        connection.close()
        world.study_is_locked = False

    world.later(seconds, unlock)
    return Hit(lasts_s=seconds)


def _redis(world: World) -> redis.Redis:
    return redis.Redis.from_url(world.cluster.redis_url, socket_timeout=5)
