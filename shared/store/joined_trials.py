"""Values of trials that other Optuna programs have added to studies of the ledger, which has no tickets for them.

They are never counted, but a sampler learns from them, and the best trial of a study may be one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, text

# Texts of constraints are judged as texts: a cast would fail for what another program wrote, and with it all studies.
_VALUES = text(r"""
    with joined as materialized (
        select s.id, s.optuna_study_id
        from json_each_text(cast(:attempts as json)) as counted
        join hn_studies s on s.id = cast(counted.key as bigint)
        where s.spec ->> 'objectives' is null
            and (select count(*) from trials t where t.study_id = s.optuna_study_id) > cast(counted.value as bigint)
    ), feasible as (
        select joined.id,
            case v.value_type when 'INF_POS' then 'infinity' when 'INF_NEG' then '-infinity' else v.value end as value
        from joined
        join trials t on t.study_id = joined.optuna_study_id and t.state = 'COMPLETE'
        join trial_values v on v.trial_id = t.trial_id and v.objective = 0
        where not exists (
            select from trial_system_attributes a
            where a.trial_id = t.trial_id and (a.key = 'constraints' or a.key like 'constraints:%')
                and a.value_json ~ '(^\[?|, ?)(Infinity|[0-9.]*[1-9])'
        )
    )
    select id, min(value), max(value) from feasible group by id
""")


def lowest_and_highest(connection: Connection, attempts: Mapping[int, int]) -> dict[int, tuple[float, float]]:
    """The values of all feasible completed trials, by study: only of those with one objective that others have joined.

    Each of our attempts has made one trial; where there are no more, nothing is read, and the tickets have the best.
    """
    rows = connection.execute(_VALUES, {"attempts": json.dumps(attempts)})
    return {study_id: (lowest, highest) for study_id, lowest, highest in rows}
