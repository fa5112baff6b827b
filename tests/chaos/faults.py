"""The kinds of fault. Each takes the world and a source of chance, and returns what it hit.

A fault that finds nothing to hit now returns None, and another one is drawn.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.world import Slot, World, kill

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
def kill_template(world: World, chance: random.Random) -> Hit | None:
    """All fork servers of the node go with it."""
    templates = world.templates()
    if not templates:
        return None
    kill(chance.choice(templates))
    return Hit()


@fault
def stop_template(world: World, chance: random.Random) -> Hit | None:
    """For good: its parent must find out."""
    templates = world.templates()
    if not templates:
        return None
    kill(chance.choice(templates), signal.SIGSTOP)
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
def lose_node(world: World, chance: random.Random) -> Hit | None:
    """Every process of a machine at once, which is off for longer than a lease: nothing of it hands back a lease."""
    nodes = [role for role in world.running if role != "coordinator"]
    if not nodes:
        return None
    node = chance.choice(nodes)
    agent = world.running[node].pid
    victims = world.slots_below(agent)
    world.away_s[node] = _beyond_the_lease(world, chance) + 3.0
    for pid in world.all_below(agent):
        kill(pid)
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
def slow_network(world: World, chance: random.Random) -> Hit | None:
    """Between the nodes and the services: 200 ms there and back, and 5 % of the packets lost."""
    link = world.link
    if link is None:
        return Hit(note="needs root and a TUN device")
    seconds = chance.uniform(4.0, 12.0)
    link.set(0.1, 0.05)
    world.later(seconds, lambda: link.set(0.0, 0.0))
    return Hit(lasts_s=seconds)


@fault
def fill_node_folder(world: World, chance: random.Random) -> Hit | None:
    """The disk of both nodes is full. Only where a file system of its own may be mounted."""
    if not world.has_own_disk:
        return Hit(note="needs root")
    seconds = chance.uniform(1.0, 6.0)
    filler = world.cluster.folder / "home" / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    world.later(seconds, lambda: filler.unlink(missing_ok=True))
    return Hit(lasts_s=seconds)
