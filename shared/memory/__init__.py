"""Whether a trial may go on using memory: samples in, verdicts out. Pure but for `sampler` and `turn`.

`guard` is the door. `policy` has the limits and what a person may set, `episode` judges one limit over time, `trend`,
`blame` and `swap` are its senses, `words` are the guide's lines, `sampler` makes samples of vitals.
"""

from highnoon.shared.memory.guard import MemoryGuard as MemoryGuard
from highnoon.shared.memory.policy import MemoryPolicy as MemoryPolicy
from highnoon.shared.memory.sample import MemorySample as MemorySample
from highnoon.shared.memory.sample import Scope as Scope
from highnoon.shared.memory.sampler import MemorySampler as MemorySampler
from highnoon.shared.memory.trend import Trend as Trend
from highnoon.shared.memory.turn import StopTurn as StopTurn
from highnoon.shared.memory.verdict import Easing as Easing
from highnoon.shared.memory.verdict import Kind as Kind
from highnoon.shared.memory.verdict import Verdict as Verdict
