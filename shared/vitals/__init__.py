"""What the kernel and the driver say about memory. The only reader; judges nothing.

`reader` is the door: host, cgroups, process tree, stalls and GPUs in one Vitals. Each of the others reads one source.
"""

from shared.vitals.cgroup import CgroupMemory as CgroupMemory
from shared.vitals.cgroup import Cgroups as Cgroups
from shared.vitals.cgroup import group_memory as group_memory
from shared.vitals.files import KernelFiles as KernelFiles
from shared.vitals.gpu import GpuDevice as GpuDevice
from shared.vitals.gpu import GpuMemory as GpuMemory
from shared.vitals.gpu import Gpus as Gpus
from shared.vitals.group import GroupMemory as GroupMemory
from shared.vitals.group import ProcessGroup as ProcessGroup
from shared.vitals.host import HostMemory as HostMemory
from shared.vitals.host import host_memory as host_memory
from shared.vitals.host import host_oom_kills as host_oom_kills
from shared.vitals.process import ProcessMemory as ProcessMemory
from shared.vitals.process import process_memory as process_memory
from shared.vitals.reader import Vitals as Vitals
from shared.vitals.reader import VitalsReader as VitalsReader
from shared.vitals.tree import ProcessTree as ProcessTree
from shared.vitals.tree import TreeMemory as TreeMemory
