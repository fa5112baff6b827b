"""The kinds of fault. Each takes the world and a source of chance, does its harm, and returns what it hit.

A fault that finds nothing to hit now returns None, and another one is drawn.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

import optuna
import psycopg2
import redis

from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.runtime.broker import Broker
from tests.chaos.world import Slot, World, kill
from tests.rubbish import RUBBISH, envelope

STUDY = "chaos"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What a fault did: the attempts that it interrupts, and how long it lasts by its nature."""

    victims: Sequence[Slot] = ()
    lasts_s: float = 0.0
    note: str = ""


Fault = Callable[[World, random.Random], "Hit | None"]
FAULTS: dict[str, Fault] = {}


def fault(act: Fault) -> Fault:
    FAULTS[act.__name__] = act
    return act


def _beyond_the_lease(world: World, chance: random.Random) -> float:
    return world.lease_s + chance.uniform(0.5, 2.0)


def _slot(world: World, chance: random.Random) -> Slot | None:
    slots = world.slots()
    return chance.choice(slots) if slots else None


@fault
def kill_trial(world: World, chance: random.Random) -> Hit | None:
    slot = _slot(world, chance)
    if slot is None or slot.trial is None:
        return None
    kill(slot.trial)
    return Hit(victims=[slot])


@fault
def stop_trial(world: World, chance: random.Random) -> Hit | None:
    slot = _slot(world, chance)
    if slot is None or slot.trial is None:
        return None
    seconds = _beyond_the_lease(world, chance)
    world.stop_for(slot.trial, seconds)
    return Hit(lasts_s=seconds)


@fault
def kill_fork_server(world: World, chance: random.Random) -> Hit | None:
    servers = world.fork_servers()
    if not servers:
        return None
    kill(chance.choice(servers))
    return Hit()


@fault
def stop_fork_server(world: World, chance: random.Random) -> Hit | None:
    """For good: its supervisor must find out."""
    servers = world.fork_servers()
    if not servers:
        return None
    kill(chance.choice(servers), signal.SIGSTOP)
    return Hit()


@fault
def kill_supervisor(world: World, chance: random.Random) -> Hit | None:
    slot = _slot(world, chance)
    if slot is None:
        return None
    kill(slot.supervisor)
    return Hit(victims=[slot])


@fault
def kill_any_supervisor(world: World, chance: random.Random) -> Hit | None:
    """At any moment of its work, also between two attempts."""
    supervisors = world.supervisors()
    if not supervisors:
        return None
    kill(chance.choice(supervisors))
    return Hit()


@fault
def stop_supervisor(world: World, chance: random.Random) -> Hit | None:
    slot = _slot(world, chance)
    if slot is None:
        return None
    seconds = _beyond_the_lease(world, chance)
    world.stop_for(slot.supervisor, seconds)
    return Hit(victims=[slot])


@fault
def kill_pool(world: World, chance: random.Random) -> Hit | None:
    pools = world.pools()
    if not pools:
        return None
    pool = chance.choice(pools)
    victims = world.slots_below(pool)
    kill(pool)
    return Hit(victims=victims)


@fault
def stop_pool(world: World, chance: random.Random) -> Hit | None:
    pools = world.pools()
    if not pools:
        return None
    seconds = _beyond_the_lease(world, chance)
    world.stop_for(chance.choice(pools), seconds)
    return Hit(lasts_s=seconds)


@fault
def kill_agent(world: World, chance: random.Random) -> Hit | None:
    agents = world.agents()
    if not agents:
        return None
    agent = chance.choice(agents)
    victims = world.slots_below(agent)
    kill(agent)
    return Hit(victims=victims)


@fault
def stop_agent(world: World, chance: random.Random) -> Hit | None:
    agents = world.agents()
    if not agents:
        return None
    seconds = _beyond_the_lease(world, chance)
    world.stop_for(chance.choice(agents), seconds)
    return Hit(lasts_s=seconds)


@fault
def drain_node(world: World, chance: random.Random) -> Hit | None:
    agents = world.agents()
    if not agents:
        return None
    kill(chance.choice(agents), signal.SIGTERM)
    return Hit()


@fault
def end_node_at_once(world: World, chance: random.Random) -> Hit | None:
    """Two signals: the second one ends everything."""
    agents = world.agents()
    if not agents:
        return None
    agent = chance.choice(agents)
    victims = world.slots_below(agent)
    kill(agent, signal.SIGTERM)
    world.later(0.05, lambda: kill(agent, signal.SIGTERM))
    return Hit(victims=victims)


@fault
def kill_coordinator(world: World, chance: random.Random) -> Hit | None:
    pid = world.coordinator()
    if pid is None:
        return None
    kill(pid)
    return Hit()


@fault
def stop_coordinator(world: World, chance: random.Random) -> Hit | None:
    pid = world.coordinator()
    if pid is None:
        return None
    seconds = _beyond_the_lease(world, chance)
    world.stop_for(pid, seconds)
    return Hit(lasts_s=seconds)


@fault
def second_coordinator(world: World, chance: random.Random) -> Hit | None:
    other = world.cluster.start_coordinator()
    world.later(chance.uniform(3.0, 8.0), lambda: kill(other.pid))
    return Hit()


@fault
def restart_redis(world: World, chance: random.Random) -> Hit | None:
    if "redis" in world.frozen:
        return None
    away_s = chance.uniform(0.1, 3.0)
    world.crash("redis", signal.SIGKILL, away_s)
    return Hit(lasts_s=away_s)


@fault
def flush_redis(world: World, chance: random.Random) -> Hit | None:
    if "redis" in world.frozen:
        return None
    with _redis(world) as client:
        client.flushall()
    return Hit()


@fault
def kill_redis_clients(world: World, chance: random.Random) -> Hit | None:
    if "redis" in world.frozen:
        return None
    with _redis(world) as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind)
    return Hit()


@fault
def freeze_redis(world: World, chance: random.Random) -> Hit | None:
    if "redis" in world.frozen:
        return None
    seconds = chance.uniform(1.0, 8.0)
    world.freeze("redis", seconds)
    return Hit(lasts_s=seconds)


@fault
def restart_postgres(world: World, chance: random.Random) -> Hit | None:
    """An immediate shutdown: no session ends in order, and recovery follows."""
    if "postgres" in world.frozen:
        return None
    away_s = chance.uniform(0.1, 2.0)
    world.crash("postgres", signal.SIGQUIT, away_s)
    return Hit(lasts_s=away_s)


@fault
def freeze_postgres(world: World, chance: random.Random) -> Hit | None:
    if "postgres" in world.frozen:
        return None
    seconds = chance.uniform(1.0, 8.0)
    world.freeze("postgres", seconds)
    return Hit(lasts_s=seconds)


@fault
def terminate_backends(world: World, chance: random.Random) -> Hit | None:
    """Sessions end in the middle of whatever they do."""
    if "postgres" in world.frozen:
        return None
    with closing(psycopg2.connect(_plain(world.cluster.database_url))) as connection, connection.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    return Hit()


@fault
def duplicate_messages(world: World, chance: random.Random) -> Hit | None:
    if "redis" in world.frozen:
        return None
    slots = world.slots()
    ticket = chance.choice(slots).ticket if slots and chance.random() < 0.5 else chance.randrange(1, 60)
    with Broker(world.cluster.redis_url) as broker:
        broker.publish([RunTrial(study=STUDY, ticket=ticket)] * 100, resource="cpu")
    return Hit()


@fault
def rubbish(world: World, chance: random.Random) -> Hit | None:
    if "redis" in world.frozen:
        return None
    newer = json.dumps(envelope({"study": STUDY, "ticket": chance.randrange(1, 60), "version": 7})).encode()
    foreign = json.dumps(envelope({"study": "unknown", "ticket": 10**9, "version": 1})).encode()
    messages = [*RUBBISH.values(), newer, foreign]
    chance.shuffle(messages)
    with _redis(world) as client:
        client.lpush("highnoon.cpu", *messages)
    return Hit()


@fault
def foreign_trial(world: World, chance: random.Random) -> Hit | None:
    """An ordinary Optuna script joins, with a parameter of its own."""
    if "postgres" in world.frozen:
        return None
    study = optuna.load_study(study_name=STUDY, storage=world.cluster.database_url)
    trial = study.ask()
    trial.suggest_categorical("side", ["left", "right"])
    study.tell(trial, chance.random())
    return Hit()


@fault
def locked_ticket(world: World, chance: random.Random) -> Hit | None:
    """A client hangs in its transaction, with the locks of Optuna's study and of some tickets."""
    if "postgres" in world.frozen:
        return None
    connection = psycopg2.connect(_plain(world.cluster.database_url))
    seconds = chance.uniform(0.5, 4.0)
    with connection.cursor() as cursor:
        cursor.execute("set lock_timeout = '500ms'")
        with suppress(psycopg2.Error):
            cursor.execute("select 1 from studies where study_name = %s for update", (STUDY,))
    world.later(seconds, connection.close)
    return Hit(lasts_s=seconds)


def _redis(world: World) -> redis.Redis:
    return redis.Redis.from_url(world.cluster.redis_url, socket_timeout=5)


def _plain(url: str) -> str:
    return url.replace("+psycopg2", "", 1)
