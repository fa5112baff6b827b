"""What the kernel and the driver say about memory. The only reader; judges nothing.

`reader` is the door: host, cgroups, process tree, stalls and GPUs in one Vitals. Each of the others reads one source.
"""

from highnoon.shared.vitals.cgroup import CgroupMemory as CgroupMemory
from highnoon.shared.vitals.cgroup import Cgroups as Cgroups
from highnoon.shared.vitals.cgroup import group_memory as group_memory
from highnoon.shared.vitals.files import KernelFiles as KernelFiles
from highnoon.shared.vitals.gpu import GpuDevice as GpuDevice
from highnoon.shared.vitals.gpu import GpuMemory as GpuMemory
from highnoon.shared.vitals.gpu import Gpus as Gpus
from highnoon.shared.vitals.group import GroupMemory as GroupMemory
from highnoon.shared.vitals.group import ProcessGroup as ProcessGroup
from highnoon.shared.vitals.host import HostMemory as HostMemory
from highnoon.shared.vitals.host import host_memory as host_memory
from highnoon.shared.vitals.host import host_oom_kills as host_oom_kills
from highnoon.shared.vitals.process import ProcessMemory as ProcessMemory
from highnoon.shared.vitals.process import process_memory as process_memory
from highnoon.shared.vitals.reader import Vitals as Vitals
from highnoon.shared.vitals.reader import VitalsReader as VitalsReader
from highnoon.shared.vitals.tree import ProcessTree as ProcessTree
from highnoon.shared.vitals.tree import TreeMemory as TreeMemory
