"""What a person enqueues: checked against the study's search space before it is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from optuna.distributions import BaseDistribution

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.param import SearchSpace, written_form
from highnoon.shared.domain.scalars import Mistake, choice, is_storable
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.search.sampling_space import SamplingSpace


def checked_point(spec: StudySpec, space: SamplingSpace, params: Params) -> Params:
    """The parameters as an enqueued trial stores them. Raises InvalidInput with all problems."""
    if spec.defines_by_run:
        return plain_point(params)
    problems = [*_misfits(space.domains, params, spec.search_space)]
    fixed = {} if problems else space.as_stored(params)
    for constraint in space.broken_by(fixed):
        problems.append(Problem(key="params", message=f"the point does not keep {constraint}", value=params))
    if problems:
        raise InvalidInput("params", problems)
    return fixed


def plain_point(params: Mapping[str, object]) -> Params:
    """For an objective that suggests as it runs: any names. Raises InvalidInput for what cannot be stored."""
    point: Params = {}
    problems = []
    for name, value in params.items():
        if not is_storable(name):
            problems.append(Problem(key=name, message="is a name that no database holds"))
            continue
        try:
            point[name] = choice(value)
        except Mistake as mistake:
            problems.append(Problem(key=name, message=mistake.message, value=value, hint=mistake.hint))
    if problems:
        raise InvalidInput("params", problems)
    return point


def _misfits(space: Mapping[str, BaseDistribution], params: Params, written: SearchSpace) -> Iterator[Problem]:
    """Names that the space does not have, and values outside their domain."""
    for name, value in params.items():
        domain = space.get(name)
        if domain is None:
            yield Problem(key=name, message="is no parameter of this study", hint=nearest(name, space))
            continue
        try:
            inside = domain._contains(domain.to_internal_repr(value))
        except (ValueError, TypeError, OverflowError):
            inside = False
        if not inside:
            shown = json.dumps(written_form(written[name]), ensure_ascii=False)
            yield Problem(key=name, message=f"is outside of {shown}", value=value)
