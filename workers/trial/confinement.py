"""What a confined trial may open, connect to and signal, enforced by the Linux kernel in the trial's own process.

    Landlock    files: the trial's own folders and HIGHNOON_TRIAL_PATHS, to read the study's code and programs;
                TCP: HIGHNOON_TRIAL_PORTS; signals, `ptrace` and /proc/<pid>/mem: processes of the same trial
    seccomp     the ways around Landlock's rules for TCP: Multipath TCP, SMC, Fast Open, io_uring
    root        keeps its capabilities that concern files: the others reach other processes and raw packets

All three only take rights away, are inherited by every program that the trial starts, and cannot be lifted. Owns the
system calls and the list of what each trial needs; `node_confinement` decides whether trials of a node are confined.
"""

from __future__ import annotations

import ctypes
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_prctl, _capset = _libc.prctl, _libc.capset
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_BENEATH_PATH, _TCP_PORT = 1, 2
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER_MODE = 22, 38, 2

_CAPABILITIES_V3, _OF_FILES = 0x20080522, 0b11111 | 1 << 14
"""CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, and IPC_LOCK for what accelerators pin."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_ALL = (1 << 16) - 1
_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many of these rights a version of Landlock has; later ones have all 16."""
_KNOWS_TCP, _KNOWS_SCOPES = 4, 6
_CONNECT_TCP = 1 << 1
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

_HIGHNOON = Path(sys.modules[__name__.partition(".")[0]].__file__ or "").parent
"""With links to its other packages, where it is a checkout."""

_SYSTEM = ("/bin", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/sbin", "/sys", "/usr")
_DEVICES = ("full", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero")
_ACCELERATORS = ("nvidia*", "dri", "kfd", "infiniband")
_ETC = (
    *("fonts", "group", "hosts", "ld.so.cache", "locale.alias", "localtime", "mime.types", "nsswitch.conf"),
    *("passwd", "pki/ca-trust", "pki/tls/certs", "protocols", "resolv.conf", "services", "ssl/certs"),
    *("ssl/openssl.cnf", "timezone"),
)
"""All of /etc that programs commonly read and that holds no secret."""
_ALWAYS_DENIED = ("/etc", "/run")
"""Below the folders of a study and of HIGHNOON_TRIAL_PATHS: where machines keep credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What the trials of a node may reach beyond their own folders; JSON-able."""

    paths: tuple[str, ...] = ()
    """Files and folders to read and write."""
    ports: tuple[int, ...] = ()
    denied: tuple[str, ...] = ()
    """Left out wherever they are: the node's home and its files with secrets."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Confinement | None:
        """The inverse of `dataclasses.asdict`."""
        return None if data is None else cls(**{name: tuple(value) for name, value in data.items()})


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 where there is none, or a container forbids it."""
    return max(0, int(_syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def missing() -> tuple[str, ...]:
    """What cannot be enforced here, in words; empty when all can be."""
    version = landlock_version()
    if version == 0:
        return ("files, connections and signals (the kernel or the container has no Landlock)",)
    lacks = []
    if version < _KNOWS_TCP or platform.machine() not in _SYSTEM_CALLS:
        lacks.append("connections (Linux 6.7 on x86-64 or arm64 can)")
    if version < _KNOWS_SCOPES:
        lacks.append("signals (Linux 6.12 can)")
    return tuple(lacks)


def begun(confinement: Confinement) -> int:
    """A ruleset with what is the same for all trials of the node: made ahead, while no trial waits."""
    common = prepared(confinement)
    ruleset = _checked(_syscall(_CREATE_RULESET, common.attributes, len(common.attributes), 0, 0))
    for kind, rule in common.rules:
        _checked(_syscall(_ADD_RULE, ruleset, kind, rule, 0))
    return ruleset


def confine(
    confinement: Confinement, ruleset: int | None, *, owned: Iterable[str], read: Iterable[str], bundle: str | None
) -> None:
    """Confines this process for good, by a ruleset of `begun` where one was made ahead. `owned` folders must exist;
    `bundle` may be read although it lies in the node's home. Raises OSError, and then nothing may run here."""
    ruleset = begun(confinement) if ruleset is None else ruleset
    common = prepared(confinement)
    _allow(ruleset, owned, _ALL & common.rights)
    _allow(ruleset, filter(None, [bundle]), _READ & common.rights)
    _allow(ruleset, read, _READ & common.rights, confinement.denied + _ALWAYS_DENIED)
    _checked(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if common.capabilities is not None:
        _checked(_capset(*common.capabilities))
    _checked(_syscall(_RESTRICT_SELF, ruleset, 0, 0, 0))
    os.close(ruleset)
    if common.filter is not None:
        _checked(_prctl(_PR_SET_SECCOMP, _FILTER_MODE, common.filter, 0, 0))


def _capabilities_kept() -> tuple[bytes, bytes] | None:
    """The arguments of the system call that drops the others; None for an ordinary user, who has none."""
    header, held = struct.pack("Ii", _CAPABILITIES_V3, 0), ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, held))
    words = struct.unpack("6I", held)
    kept = struct.pack("6I", *(word & _OF_FILES for word in words[:3]), 0, 0, 0)
    return (header, kept) if any(words) else None


def _allow(ruleset: int, paths: Iterable[str], rights: int, denied: tuple[str, ...] = ()) -> None:
    """Adds a right to files and folders, but for what is denied below them. What does not exist needs no right."""
    for descriptor, allowed in _opened(paths, rights):
        # As the kernel has resolved it, at a fraction of the cost of `realpath`.
        real = os.readlink(f"/proc/self/fd/{descriptor}") if denied else ""  # noqa: PTH115
        if any(real.startswith(other) or other.startswith(real) for other in denied):
            inside = [*_without(real, denied)]
            _allow(ruleset, inside, rights)
            # As in `_common`.
            allowed = allowed & _READ_DIR if inside else 0
        if allowed:
            _checked(_syscall(_ADD_RULE, ruleset, _BENEATH_PATH, _beneath(descriptor, allowed), 0))
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is the same for all trials of a node."""

    attributes: bytes
    rights: int
    rules: tuple[tuple[int, bytes], ...]
    filter: bytes | None
    capabilities: tuple[bytes, bytes] | None


@cache
def prepared(confinement: Confinement) -> _Prepared:
    """Finds that out; before the forks, so that no trial has to. Raises OSError where nothing can be confined."""
    version = landlock_version()
    if version == 0:
        raise OSError("this kernel cannot confine a trial")
    rights = (1 << _RIGHTS_OF_ABI.get(version, 16)) - 1
    knows_tcp = version >= _KNOWS_TCP and platform.machine() in _SYSTEM_CALLS
    scopes = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _KNOWS_SCOPES else 0
    attributes = struct.pack("QQQ", rights, _CONNECT_TCP if knows_tcp else 0, scopes)
    size = 8 if version < _KNOWS_TCP else 16 if version < _KNOWS_SCOPES else 24
    rules = [(_BENEATH_PATH, _beneath(descriptor, allowed & rights)) for descriptor, allowed in _common(confinement)]
    if knows_tcp:
        rules += [(_TCP_PORT, struct.pack("QQ", _CONNECT_TCP, port)) for port in confinement.ports]
    return _Prepared(
        attributes=attributes[:size],
        rights=rights,
        rules=tuple(rules),
        filter=_system_call_filter() if knows_tcp else None,
        capabilities=_capabilities_kept(),
    )


def _beneath(descriptor: int, rights: int) -> bytes:
    return struct.pack("=Qi", rights, descriptor)


def _common(confinement: Confinement) -> list[tuple[int, int]]:
    """What all trials may open: descriptors, which stay open, and rights."""
    ours = [_HIGHNOON, *(path for path in _HIGHNOON.iterdir() if path.is_dir())]
    programs = [*_SYSTEM, sys.prefix, sys.base_prefix, *filter(None, sys.path), *map(str, ours)]
    # Keras does not start without its configuration, where there is one.
    programs += [*(f"/etc/{name}" for name in _ETC), os.environ.get("KERAS_HOME") or str(Path("~/.keras").expanduser())]
    devices = [str(path) for name in (*_DEVICES, *_ACCELERATORS) for path in Path("/dev").glob(name)]
    denied = confinement.denied + _ALWAYS_DENIED
    programs = [os.path.realpath(path) for path in programs]
    readable = [p for path in programs for p in _without(path, confinement.denied)]
    # No module is found in a folder that cannot be listed.
    listed = [path for path in programs if any(other.startswith(f"{path}/") for other in confinement.denied)]
    writable = [os.path.realpath(path) for path in devices]
    writable += [p for path in confinement.paths for p in _without(os.path.realpath(path), denied)]
    writable = [*dict.fromkeys(writable)]
    return [*_opened(_outermost(readable), _READ), *_opened(listed, _READ_DIR), *_opened(writable, _ALL)]


def _without(path: str, denied: Iterable[str]) -> Iterator[str]:
    """The path, or what there is below it now but for what is denied."""
    if any(path == other or path.startswith(f"{other}/") for other in denied):
        return
    inside = [other for other in denied if other.startswith(f"{path.rstrip('/')}/")]
    if not inside:
        yield path
        return
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if not entry.is_symlink():
                yield from _without(entry.path, inside)


def _outermost(paths: list[str]) -> list[str]:
    """Without what is below another one of them."""
    kept = set(paths)
    return [path for path in kept if not any(str(above) in kept for above in Path(path).parents)]


def _opened(paths: Iterable[str], rights: int) -> Iterator[tuple[int, int]]:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # what does not exist needs no right
            continue
        yield descriptor, rights if stat.S_ISDIR(os.fstat(descriptor).st_mode) else rights & _OF_A_FILE


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"a trial cannot be confined: {os.strerror(ctypes.get_errno())}")
    return result


# The filter of system calls: a program of the classic BPF machine, whose input is `struct seccomp_data`.

_SYSTEM_CALLS = {
    "x86_64": (0xC000003E, {"socket": 41, "sendto": 44, "sendmsg": 46, "sendmmsg": 307, "io_uring_setup": 425}),
    "aarch64": (0xC00000B7, {"socket": 198, "sendto": 206, "sendmsg": 211, "sendmmsg": 269, "io_uring_setup": 425}),
}
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_SECOND_TABLE = 0x40000000
"""Of x86-64: the same system calls under other numbers."""
_SMC, _MPTCP, _FAST_OPEN = 43, 262, 0x20000000
_NOT_PERMITTED, _NOT_SUPPORTED = 1, 93


def _system_call_filter() -> bytes:
    """The argument of the system call that sets it."""
    program = _program()
    code = ctypes.create_string_buffer(b"".join(program), len(program) * 8)
    _kept.append(code)
    return struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))


_kept: list[object] = []
"""What the kernel reads by its address."""


def _program() -> tuple[bytes, ...]:
    architecture, number_of = _SYSTEM_CALLS[platform.machine()]
    refuse, allow = _instruction(_RETURN, _REFUSE | _NOT_PERMITTED), _instruction(_RETURN, _ALLOW)
    unsupported = _instruction(_RETURN, _REFUSE | _NOT_SUPPORTED)
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        *(_instruction(_IF_EQUAL, architecture, yes=1), refuse),
        _instruction(_LOAD, _NUMBER),
        *(_instruction(_IF_AT_LEAST, _SECOND_TABLE, no=1), refuse),
        *(_instruction(_IF_EQUAL, number_of["io_uring_setup"], no=1), refuse),
    ]
    for name, place, test, value in (
        ("socket", 0, _IF_EQUAL, _SMC),
        ("socket", 2, _IF_EQUAL, _MPTCP),
        ("sendto", 3, _IF_ANY_BIT, _FAST_OPEN),
        ("sendmsg", 2, _IF_ANY_BIT, _FAST_OPEN),
        ("sendmmsg", 3, _IF_ANY_BIT, _FAST_OPEN),
    ):
        program += [
            _instruction(_IF_EQUAL, number_of[name], no=4),
            _instruction(_LOAD, _FIRST_ARGUMENT + 8 * place),
            *(_instruction(test, value, no=1), unsupported),
            _instruction(_LOAD, _NUMBER),
        ]
    return (*program, allow)


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)
