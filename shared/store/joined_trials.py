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
        from json_to_recordset(cast(:ours as json)) as ours(id bigint, attempts bigint, completed bigint)
        join hn_studies s on s.id = ours.id
        where s.spec ->> 'objectives' is null
            -- The first of these reads an index alone, and decides for nearly all studies.
            and (select count(*) from trials t where t.study_id = s.optuna_study_id) > ours.attempts
            and (
                select count(*) from trials t where t.study_id = s.optuna_study_id and t.state = 'COMPLETE'
            ) > ours.completed
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


def lowest_and_highest(connection: Connection, ours: Mapping[int, tuple[int, int]]) -> dict[int, tuple[float, float]]:
    """The values of all feasible completed trials, by study: only of those with one objective that others have joined.

    `ours`: of each study how many attempts we have begun, each of which has made one trial, and how many tickets are
    completed. Where there are no more trials, or no more complete ones, the tickets have the best, and nothing is read.
    """
    counts = [{"id": one, "attempts": begun, "completed": done} for one, (begun, done) in ours.items()]
    rows = connection.execute(_VALUES, {"ours": json.dumps(counts)})
    return {study_id: (lowest, highest) for study_id, lowest, highest in rows}
