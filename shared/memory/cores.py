"""The processor cores that this process may use: by its affinity, and by the quotas of its cgroups.

`docker run --cpus`, `limits.cpu` of Kubernetes and `CPUQuota=` of systemd leave every core in sight, and limit the time
on all of them together. Programs that start a thread for each core then only wait for one another.
"""

from __future__ import annotations

import math
import os

from highnoon.shared.memory.cgroup import groups_of
from highnoon.shared.memory.kernel_files import KernelFiles


def usable_cores(files: KernelFiles | None = None) -> int:
    """How many cores this process can keep busy, at least 1; a part of a core counts as one. Never raises."""
    files = files or KernelFiles()
    version, folders = groups_of("cpu", os.getpid(), files)
    quotas = (_quota(folder, version, files) for folder in folders)
    return min([len(os.sched_getaffinity(0)), *(math.ceil(quota) for quota in quotas if quota is not None)])


def _quota(folder: str, version: int, files: KernelFiles) -> float | None:
    """Of one group, in cores; None where it has none, which is written as `max` or -1."""
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    words = " ".join(files.text(f"{folder}/{name}") or "" for name in names).split()
    numbers = [int(word) for word in words if word.isdigit()]
    return numbers[0] / numbers[1] if len(numbers) == 2 and all(numbers) else None
