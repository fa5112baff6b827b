"""Optuna's samplers and pruners as our studies use them: built from a spec, asked before a trial exists.

`build` turns specs into Optuna's objects, `ahead` asks a sampler for the point of a trial that is yet to be created,
`grid` picks points by ordinal instead of sampling. Creating, telling and every database belong to `shared.studies`,
the only caller.
"""

from highnoon.shared.samplers.ahead import Sampled, as_stored, sample, seed_of, snapshot_of
from highnoon.shared.samplers.build import Distributions, build_pruner, build_sampler, distributions
from highnoon.shared.samplers.grid import Grid

__all__ = [
    "Distributions",
    "Grid",
    "Sampled",
    "as_stored",
    "build_pruner",
    "build_sampler",
    "distributions",
    "sample",
    "seed_of",
    "snapshot_of",
]
