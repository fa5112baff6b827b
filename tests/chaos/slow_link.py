"""A link between nodes and services that can be slow and lose packets, in a network of the run's own. Needs root.

    node -> SERVICES (10.9.0.2) -> TUN device -> carrier process -> 127.0.0.1, where the services listen

The carrier delays and drops whole packets, so that TCP's own repetitions are what the programs meet: as `tc netem`,
which not every kernel has. The network is a namespace: the interfaces of this machine stay as they are.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import inet_aton

from highnoon.shared.runtime.processes import die_with_parent

SERVICES = "10.9.0.2"
_NODES, _LOOPBACK = "10.9.0.1", "127.0.0.1"
_DEVICE = "slow0"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_TUN, _NO_HEADER = 0x0001, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class SlowLink:
    """The link of one run."""

    carrier: subprocess.Popen[bytes]

    def set(self, delay_s: float, loss: float) -> None:
        """From now on each packet takes so long and is lost with this probability."""
        assert self.carrier.stdin is not None
        self.carrier.stdin.write(struct.pack("dd", delay_s, loss))
        self.carrier.stdin.flush()

    @staticmethod
    def address(url: str) -> str:
        """An address of this machine as nodes reach it over the link."""
        return url.replace(_LOOPBACK, SERVICES)


@contextmanager
def own_network() -> Iterator[SlowLink | None]:
    """A network namespace for this thread and what it starts; None, and no namespace, where there cannot be one."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        tun = _entered()
        if tun is None:
            yield None
            return
        with subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.slow_link", str(tun)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            pass_fds=[tun],
            preexec_fn=die_with_parent,
        ) as carrier:
            os.close(tun)
            try:
                yield SlowLink(carrier)
            finally:
                carrier.kill()
    finally:
        _libc.setns(before, _CLONE_NEWNET)
        os.close(before)


def _entered() -> int | None:
    """The device's descriptor, in a new namespace."""
    if os.geteuid() != 0 or _libc.unshare(_CLONE_NEWNET) != 0:
        return None
    with suppress(OSError, subprocess.CalledProcessError):
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", _DEVICE.encode(), _TUN | _NO_HEADER))
        _ip("link", "set", "lo", "up")
        _ip("addr", "add", _NODES, "peer", SERVICES, "dev", _DEVICE)
        _ip("link", "set", _DEVICE, "up")
        # Packets from and to loopback are otherwise allowed on its own device only.
        Path(f"/proc/sys/net/ipv4/conf/{_DEVICE}/route_localnet").write_text("1")
        return tun
    return None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _carry(tun: int) -> None:
    """The carrier, until its standard input ends."""
    nodes, services, loopback = (inet_aton(address) for address in (_NODES, SERVICES, _LOOPBACK))
    to_services, to_nodes = _difference(nodes, loopback), _difference(loopback, nodes)
    delay_s, loss = 0.0, 0.0
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        pause_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([tun, 0], [], [], pause_s)
        if 0 in ready:
            order = os.read(0, 16)
            if len(order) < 16:
                return
            delay_s, loss = struct.unpack("dd", order)
        if tun in ready:
            packet = os.read(tun, 65536)
            if packet[0] >> 4 == 4 and packet[9] == 6 and random.random() >= loss:
                is_to_services = packet[12:16] == nodes
                source, target = (services, loopback) if is_to_services else (services, nodes)
                moved = _readdressed(packet, source, target, to_services if is_to_services else to_nodes)
                # Never before the packet that came first.
                due = max(time.monotonic() + delay_s, waiting[-1][0] if waiting else 0.0)
                waiting.append((due, moved))
        while waiting and waiting[0][0] <= time.monotonic():
            with suppress(OSError):
                os.write(tun, waiting.popleft()[1])


def _readdressed(packet: bytes, source: bytes, target: bytes, difference: int) -> bytes:
    """An IPv4 packet of TCP with other addresses, and the two checksums that cover them."""
    moved = bytearray(packet)
    moved[12:16], moved[16:20] = source, target
    for place in (10, (packet[0] & 15) * 4 + 16):
        (checksum,) = struct.unpack_from("!H", moved, place)
        struct.pack_into("!H", moved, place, ~_folded((~checksum & 0xFFFF) + difference) & 0xFFFF)
    return bytes(moved)


def _difference(before: bytes, after: bytes) -> int:
    """What the sum of a packet's 16-bit words grows by, in ones' complement."""
    return _folded(sum(struct.unpack("!2H", after)) + sum(~word & 0xFFFF for word in struct.unpack("!2H", before)))


def _folded(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


if __name__ == "__main__":
    _carry(int(sys.argv[1]))
