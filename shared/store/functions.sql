-- The life of an attempt: start, renew, report, finish, reap. Each is one call and one transaction, so that no lock is
-- held across a network round trip.
--
-- Installed by `Database.create_schema`, called by `attempts.py` alone. A function whose arguments or answer change gets
-- the next number in its name: processes of the version before go on beside newer ones. An upgrade drops no function:
-- workers of ledger version 6 go on with hn_renew_1, whose text is in tests/contract/test_upgrade_beside_workers.py.
--
-- They rely on READ COMMITTED: each statement reads what was committed before it got its lock.
-- Locks are taken in this order: Optuna's study, the ticket, the Optuna trial, the attempt. Finish, renew and reap take
-- no lock on a study.
--
-- Errors of ours: HN001 the lease is lost.

-- The wall clock as seconds since the epoch. The only clock that judges an expiry.
create or replace function hn_now_1() returns double precision language sql volatile as
$$ select extract(epoch from clock_timestamp())::double precision $$;

-- What Optuna calls now: its times are naive UTC.
create or replace function hn_utc_now_1() returns timestamp without time zone language sql volatile as
$$ select clock_timestamp() at time zone 'utc' $$;

-- Writes attributes of a trial, replacing those that are there: a clone made by Optuna carries its original's.
-- Each value is JSON as text, as Optuna stores it.
create or replace function hn_write_attrs_1(p_trial bigint, p_user_attrs json, p_system_attrs json) returns void
language plpgsql as $$
begin
    insert into trial_user_attributes (trial_id, key, value_json)
        select p_trial, key, value from json_each_text(p_user_attrs)
        on conflict (trial_id, key) do update set value_json = excluded.value_json;
    insert into trial_system_attributes (trial_id, key, value_json)
        select p_trial, key, value from json_each_text(p_system_attrs)
        on conflict (trial_id, key) do update set value_json = excluded.value_json;
end $$;

-- Adds parameters [[name, value, domain], ...] to a trial; those that are there stay.
create or replace function hn_write_params_1(p_trial bigint, p_params json) returns void language plpgsql as $$
begin
    insert into trial_params (trial_id, param_name, param_value, distribution_json)
        select p_trial, row ->> 0, (row ->> 1)::double precision, row ->> 2
        from json_array_elements(p_params) with ordinality as params (row, position) order by position
        on conflict (trial_id, param_name) do nothing;
end $$;

-- Adds reports [[step, value or null, kind], ...] to a trial that is RUNNING; the first report of a step stays.
-- The lock keeps the trial from ending meanwhile: who reads an ended trial caches it for ever.
create or replace function hn_write_reports_1(p_trial bigint, p_reports json) returns void language plpgsql as $$
begin
    if json_array_length(p_reports) = 0 then
        return;
    end if;
    perform 1 from trials where trial_id = p_trial and state = 'RUNNING' for share;
    if not found then
        return;
    end if;
    insert into trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
        select p_trial, (row ->> 0)::integer, (row ->> 1)::double precision, (row ->> 2)::trialintermediatevaluetype
        from json_array_elements(p_reports) with ordinality as reports (row, position) order by position
        on conflict (trial_id, step) do nothing;
end $$;

-- Ends a trial whose row the caller has locked: {"state", "value" or null, "values", "user_attrs", "system_attrs"}.
-- "values" are there where the study has several objectives, and has a value for each of them or none.
-- A PRUNED one without a value takes its last report, unless that is NaN.
create or replace function hn_end_trial_1(p_trial bigint, p_result json) returns void language plpgsql as $$
declare
    v_value double precision := (p_result ->> 'value')::double precision;
    v_values double precision[];
begin
    if p_result ->> 'values' is not null then
        v_values := array(select json_array_elements_text(p_result -> 'values')::double precision);
    elsif v_value is null and p_result ->> 'state' = 'PRUNED' then
        select case intermediate_value_type
                   when 'INF_POS' then 'infinity'::double precision
                   when 'INF_NEG' then '-infinity'::double precision
                   when 'FINITE' then intermediate_value
               end
            into v_value from trial_intermediate_values where trial_id = p_trial order by step desc limit 1;
    end if;
    update trials set state = (p_result ->> 'state')::trialstate, datetime_complete = hn_utc_now_1()
        where trial_id = p_trial;
    if v_value is not null then
        v_values := array[v_value];
    end if;
    insert into trial_values (trial_id, objective, value, value_type)
        select p_trial, position - 1,
               case when one in ('infinity', '-infinity') then null else one end,
               (case one when 'infinity' then 'INF_POS' when '-infinity' then 'INF_NEG' else 'FINITE' end)
                   ::trialvaluetype
        from unnest(v_values) with ordinality as all_values (one, position);
    perform hn_write_attrs_1(p_trial, p_result -> 'user_attrs', p_result -> 'system_attrs');
end $$;

-- Ends the Optuna trial of an attempt unless another program has. Returns how that one ended it, where it differs: its
-- ending stays in Optuna, ours is in the ticket.
create or replace function hn_end_own_trial_1(p_trial bigint, p_result json, p_reports json) returns text
language plpgsql as $$
declare
    v_state text;
    v_values double precision[];
    v_own double precision[];
begin
    select state::text into v_state from trials where trial_id = p_trial for update;
    if not found then
        return 'deleted';
    end if;
    if v_state in ('RUNNING', 'WAITING') then
        perform hn_write_reports_1(p_trial, p_reports);
        perform hn_end_trial_1(p_trial, p_result);
        return null;
    end if;
    v_values := array(
        select case value_type when 'INF_POS' then 'infinity' when 'INF_NEG' then '-infinity' else value end
            from trial_values where trial_id = p_trial order by objective);
    v_own := case when p_result ->> 'value' is null
        then array(select json_array_elements_text(coalesce(p_result -> 'values', '[]'))::double precision)
        else array[(p_result ->> 'value')::double precision] end;
    if v_state = p_result ->> 'state' and (cardinality(v_own) = 0 or v_values = v_own) then
        return null;
    end if;
    return concat_ws(' ', v_state, nullif(array_to_string(v_values, ' '), ''));
end $$;

-- A person has stopped this one trial and its study goes on: the ticket is over, also where its holder died, and counts
-- like any other. Where the whole study was cancelled, it is dropped instead.
create or replace function hn_is_stopped_1(p_study bigint, p_cancel_requested boolean) returns boolean
language sql volatile as
$$
    select p_cancel_requested
        and not exists (select 1 from hn_studies where id = p_study and state in ('cancelling', 'cancelled'))
$$;

-- The result of a trial that is not tried again, since a person has stopped it or its study.
create or replace function hn_cancelled_result_1(p_result json) returns json language sql immutable as
$$
    select jsonb_set(p_result::jsonb, '{user_attrs}', coalesce(p_result::jsonb -> 'user_attrs', '{}')
        || '{"highnoon:ending": "\"cancelled\"", "highnoon:cause": "\"cancelled\""}')::json
$$;

-- Closes the ticket of a trial that a person has stopped, and whose holder did not close it.
create or replace function hn_close_stopped_1(p_ticket bigint, p_outcome json) returns void language sql as
$$
    update hn_tickets set
        state = 'closed', lease_expires_at = null, closed_at = hn_now_1(), ending = 'cancelled', value = null,
        outcome = ((p_outcome::jsonb - 'log_tail' - 'memory' - 'metric_history' - 'value' - 'values')
            || '{"ending": "cancelled", "cause": "cancelled", "message": "cancelled by a person"}')::json
        where id = p_ticket
$$;

-- What the next attempt's point depends on; null for a ticket that is taken, over or not due. Takes no lock. A function
-- since its plan is kept: a session would plan the query again for each trial, which takes longer than to run it.
create or replace function hn_look_2(p_ticket bigint, p_neighbour text) returns json language plpgsql as $$
declare
    v_answer json;
begin
    select row_to_json(look) into v_answer from (
        select t.id, t.study_id, t.ordinal, t.attempt, t.infrastructure_failures, t.errors, t.params, t.trial_number,
               t.checkpoint, s.name, s.spec, s.spec_version, o.study_id as optuna_study_id,
               exists (select 1 from hn_attempts a where a.ticket_id = t.id and a.cause = p_neighbour) as must_be_alone,
               w.trial_id as waiting_id, w.number as waiting_number,
               (select value_json from trial_system_attributes
                where trial_id = w.trial_id and key = 'fixed_params') as waiting_fixed,
               (select value_json from trial_system_attributes
                where trial_id = w.trial_id and key = 'highnoon:extension') as waiting_extension,
               (select json_agg(json_build_array(param_name, param_value, distribution_json) order by param_id)
                from trial_params where trial_id = w.trial_id) as waiting_params
        from hn_tickets t
        join hn_studies s on s.id = t.study_id
        left join studies o on o.study_id = s.optuna_study_id
        -- Reads all of the study's trials where none waits, since no index of Optuna's has the state: 2 ms at 50,000.
        left join lateral (
            select trial_id, number from trials
            where study_id = o.study_id and state = 'WAITING' and t.trial_number is null
            order by trial_id limit 1) w on true
        where t.id = p_ticket and t.state in ('waiting', 'queued') and t.not_before <= hn_now_1()
    ) look;
    return v_answer;
end $$;

-- Starts the next attempt of a ticket: the ticket is running under the attempt's number, its Optuna trial RUNNING with
-- parameters and attributes, the attempt noted. Answers {"attempt", "trial_id", "trial_number", "params"}, or
-- {"refused": a StartRefusal}, and has changed nothing then, but that a ticket of a paused study waits again.
-- Repeated after a lost acknowledgement it finds its own first try. A trial that goes on from another one's checkpoint has
-- that in p_trial, and the ticket keeps it.
create or replace function hn_start_attempt_2(
    p_ticket bigint, p_attempt integer, p_spec_version integer, p_worker text, p_host text, p_pid integer,
    p_ttl double precision, p_params json, p_trial json, p_log_path text, p_code text
) returns json language plpgsql as $$
declare
    v_optuna_study integer;
    v_ticket hn_tickets%rowtype;
    v_study record;
    v_trial bigint := (p_trial ->> 'waiting')::bigint;
    v_number integer;
begin
    select s.optuna_study_id into v_optuna_study
        from hn_tickets t join hn_studies s on s.id = t.study_id
        where t.id = p_ticket and t.state not in ('closed', 'cancelled');
    if not found then
        return json_build_object('refused', 'not_available');
    end if;
    -- Trials are numbered under this lock, as Optuna numbers them.
    perform 1 from studies where study_id = v_optuna_study for update;
    if not found then
        return json_build_object('refused', 'study_deleted');
    end if;
    select * into v_ticket from hn_tickets where id = p_ticket for update;
    if not found then
        return json_build_object('refused', 'not_available');
    end if;
    if v_ticket.state = 'running' and v_ticket.attempt = p_attempt + 1 and exists (
        select 1 from hn_attempts
        where ticket_id = p_ticket and attempt = p_attempt + 1 and worker_id = p_worker and pid = p_pid
    ) then
        update hn_tickets set lease_expires_at = hn_now_1() + p_ttl where id = p_ticket;
        return json_build_object('attempt', v_ticket.attempt, 'trial_id', v_ticket.trial_id,
                                 'trial_number', v_ticket.trial_number, 'params', v_ticket.params);
    end if;
    select state, spec_version, stop_reason into v_study from hn_studies where id = v_ticket.study_id;
    if v_ticket.state not in ('waiting', 'queued') then
        return json_build_object('refused', 'not_available');
    end if;
    if v_study.state = 'paused' then
        -- Resume must find it waiting, or it would never dispatch it again.
        update hn_tickets set state = 'waiting', queued_at = null where id = p_ticket and state = 'queued';
        return json_build_object('refused', 'paused');
    end if;
    -- A limit of the study is met: tickets that are queued still are dropped by one of the next ticks.
    if v_study.state <> 'running' or v_study.stop_reason is not null or v_ticket.not_before > hn_now_1() then
        return json_build_object('refused', 'not_available');
    end if;
    if v_ticket.attempt <> p_attempt or v_study.spec_version <> p_spec_version then
        return json_build_object('refused', 'changed');
    end if;

    if v_trial is not null then
        select number into v_number from trials
            where trial_id = v_trial and study_id = v_optuna_study and state = 'WAITING' for update;
        if not found then
            return json_build_object('refused', 'changed');
        end if;
        update trials set state = 'RUNNING', datetime_start = hn_utc_now_1() where trial_id = v_trial;
    else
        select coalesce(
            (select number from trials where study_id = v_optuna_study order by trial_id desc limit 1), -1) + 1
            into v_number;
        insert into trials (number, study_id, state, datetime_start)
            values (v_number, v_optuna_study, 'RUNNING', hn_utc_now_1()) returning trial_id into v_trial;
    end if;
    -- An enqueued trial may have some of its parameters already.
    perform hn_write_params_1(v_trial, p_trial -> 'params');
    perform hn_write_attrs_1(v_trial, p_trial -> 'user_attrs', p_trial -> 'system_attrs');
    perform hn_write_attrs_1(
        v_trial, json_build_object('highnoon:ticket', p_ticket, 'highnoon:attempt', p_attempt + 1), '{}');

    update hn_tickets set
        state = 'running', attempt = p_attempt + 1, worker_id = p_worker, lease_expires_at = hn_now_1() + p_ttl,
        cancel_requested = false, step = null, rss_bytes = null,
        trial_id = v_trial, trial_number = v_number, params = p_params,
        checkpoint = coalesce(p_trial -> 'checkpoint', checkpoint)
        where id = p_ticket;
    insert into hn_attempts (ticket_id, attempt, worker_id, host, pid, trial_number, log_path, code, environment, started_at)
        values (p_ticket, p_attempt + 1, p_worker, p_host, p_pid, v_number,
                replace(p_log_path, '{number}', lpad(v_number::text, greatest(5, length(v_number::text)), '0')),
                p_code, p_trial ->> 'environment', hn_now_1());
    return json_build_object('attempt', p_attempt + 1, 'trial_id', v_trial, 'trial_number', v_number);
end $$;

-- Extends a lease by its full term, with the attempt's progress, reports and the curves of its metrics (null leaves
-- those that are there); answers whether to cancel. HN001.
create or replace function hn_renew_2(
    p_ticket bigint, p_attempt integer, p_ttl double precision, p_step bigint, p_rss_bytes bigint, p_reports json,
    p_metric_history json
) returns boolean language plpgsql as $$
declare
    v_ticket record;
begin
    update hn_tickets set lease_expires_at = hn_now_1() + p_ttl, step = p_step, rss_bytes = p_rss_bytes
        where id = p_ticket and attempt = p_attempt and state = 'running'
        returning trial_id, cancel_requested into v_ticket;
    if not found then
        raise exception 'renew: the lease is lost' using errcode = 'HN001';
    end if;
    perform hn_write_reports_1(v_ticket.trial_id, p_reports);
    if p_metric_history is not null then
        update hn_attempts set metric_history = p_metric_history where ticket_id = p_ticket and attempt = p_attempt;
    end if;
    return v_ticket.cancel_requested;
end $$;

-- Adds reports of an attempt that holds its lease. HN001.
create or replace function hn_add_reports_1(p_ticket bigint, p_attempt integer, p_reports json) returns void
language plpgsql as $$
declare
    v_trial bigint;
begin
    select trial_id into v_trial from hn_tickets where id = p_ticket and attempt = p_attempt and state = 'running';
    if not found then
        raise exception 'add reports: the lease is lost' using errcode = 'HN001';
    end if;
    -- A reaper that comes in between fails the trial, and nothing is written to it.
    perform hn_write_reports_1(v_trial, p_reports);
end $$;

-- Adds parameters [[name, value, domain], ...] and attributes to the trial of an attempt that holds its lease; the
-- ticket keeps the parameters p_params for the attempt after it; null leaves them. HN001.
create or replace function hn_add_to_trial_1(p_ticket bigint, p_attempt integer, p_params json, p_trial json)
returns void language plpgsql as $$
declare
    v_trial bigint;
begin
    update hn_tickets set params = coalesce(p_params, params) where id = p_ticket and attempt = p_attempt and state = 'running'
        returning trial_id into v_trial;
    if not found then
        raise exception 'add to trial: the lease is lost' using errcode = 'HN001';
    end if;
    -- The lock keeps the trial from ending meanwhile: who reads an ended trial caches it for ever.
    perform 1 from trials where trial_id = v_trial and state = 'RUNNING' for share;
    if not found then
        return;
    end if;
    perform hn_write_params_1(v_trial, p_trial -> 'params');
    perform hn_write_attrs_1(v_trial, p_trial -> 'user_attrs', p_trial -> 'system_attrs');
end $$;

-- Notes a file of an attempt that holds its lease, before it is written to the store. HN001. May be repeated.
create or replace function hn_note_file_1(p_ticket bigint, p_attempt integer, p_file text) returns void
language plpgsql as $$
begin
    insert into hn_files (id, ticket_id, attempt, trial_id, created_at)
        select p_file, id, attempt, trial_id, hn_now_1() from hn_tickets
        where id = p_ticket and attempt = p_attempt and state = 'running'
        on conflict (id) do nothing;
    if not found and not exists (
        select 1 from hn_tickets where id = p_ticket and attempt = p_attempt and state = 'running'
    ) then
        raise exception 'note file: the lease is lost' using errcode = 'HN001';
    end if;
end $$;

-- The next attempt of the ticket goes on from this checkpoint. HN001. May be repeated.
create or replace function hn_keep_checkpoint_1(p_ticket bigint, p_attempt integer, p_checkpoint json) returns void
language plpgsql as $$
begin
    update hn_tickets set checkpoint = p_checkpoint
        where id = p_ticket and attempt = p_attempt and state = 'running';
    if not found then
        raise exception 'keep checkpoint: the lease is lost' using errcode = 'HN001';
    end if;
end $$;

-- Finishes an attempt: the ticket is closed with the outcome, or waits again ('retry' is charged, 'release' is not); one
-- that a person has stopped does not wait again, but is closed as cancelled.
-- The Optuna trial and the attempt end with it. HN001. Returns how another program had ended the Optuna trial, if one did
-- and it differs. Repeated with the same token it finds its own first try.
create or replace function hn_finish_attempt_1(
    p_ticket bigint, p_attempt integer, p_token text, p_disposition text, p_delay double precision,
    p_outcome json, p_result json, p_reports json
) returns text language plpgsql as $$
declare
    v_ticket hn_tickets%rowtype;
    v_foreign text;
    v_is_stopped boolean;
begin
    select * into v_ticket from hn_tickets where id = p_ticket for update;
    if not found or v_ticket.attempt <> p_attempt or v_ticket.state <> 'running' then
        select foreign_ending into v_foreign from hn_attempts
            where ticket_id = p_ticket and attempt = p_attempt and finish_token = p_token;
        if not found then
            raise exception 'finish: the lease is lost' using errcode = 'HN001';
        end if;
        return v_foreign;
    end if;
    v_is_stopped := p_disposition <> 'close' and hn_is_stopped_1(v_ticket.study_id, v_ticket.cancel_requested);
    v_foreign := hn_end_own_trial_1(
        v_ticket.trial_id, case when v_is_stopped then hn_cancelled_result_1(p_result) else p_result end, p_reports);
    if v_is_stopped then
        perform hn_close_stopped_1(p_ticket, p_outcome);
    elsif p_disposition = 'close' then
        update hn_tickets set
            state = 'closed', lease_expires_at = null, closed_at = hn_now_1(), ending = p_outcome ->> 'ending',
            -- Of an infeasible one it is in the outcome only: the column is what the best one is found by.
            value = case when exists (
                select 1 from json_each_text(coalesce(p_outcome -> 'misses', '{}'))
                where value::double precision > 0) then null else (p_outcome ->> 'value')::double precision end,
            -- The attempt keeps the log, the samples of its memory and the curves of its metrics.
            outcome = (p_outcome::jsonb - 'log_tail' - 'memory' - 'metric_history')::json
            where id = p_ticket;
    else
        update hn_tickets set
            -- A person may have cancelled its study meanwhile.
            state = case when cancel_requested then 'cancelled' else 'waiting' end,
            infrastructure_failures = infrastructure_failures
                + (p_disposition = 'retry' and p_outcome ->> 'ending' <> 'failed')::integer,
            errors = errors + (p_disposition = 'retry' and p_outcome ->> 'ending' = 'failed')::integer,
            not_before = hn_now_1() + p_delay, worker_id = null, lease_expires_at = null, queued_at = null
            where id = p_ticket;
    end if;
    update hn_attempts set
        ended_at = hn_now_1(), ending = p_outcome ->> 'ending', cause = p_outcome ->> 'cause',
        message = p_outcome ->> 'message', exit_status = (p_outcome ->> 'exit_status')::integer,
        signal = p_outcome ->> 'signal', peak_rss_bytes = (p_outcome ->> 'peak_rss_bytes')::bigint,
        log_tail = p_outcome ->> 'log_tail', memory = (p_outcome ->> 'memory')::json,
        metric_history = coalesce(p_outcome -> 'metric_history', metric_history),
        finish_token = p_token, foreign_ending = v_foreign
        where ticket_id = p_ticket and attempt = p_attempt;
    return v_foreign;
end $$;

-- Takes back the ticket of an attempt whose holder is dead, or whose lease ran out: it waits again with a failure
-- charged, or is closed: as lost once its attempts are used up, as cancelled where a person has stopped it. Its Optuna
-- trial fails. Answers what became of it, or null where the attempt does not hold the ticket or, with p_only_expired, has
-- not expired.
create or replace function hn_reap_1(
    p_ticket bigint, p_attempt integer, p_only_expired boolean, p_retry_delay double precision, p_outcome json,
    p_result json
) returns text language plpgsql as $$
declare
    v_ticket hn_tickets%rowtype;
    v_retry boolean;
    v_is_stopped boolean;
begin
    if p_only_expired then
        -- The reaper does not wait for a locked row: a later tick takes it.
        select * into v_ticket from hn_tickets
            where id = p_ticket and attempt = p_attempt and state = 'running' and lease_expires_at < hn_now_1()
            for update skip locked;
    else
        select * into v_ticket from hn_tickets
            where id = p_ticket and attempt = p_attempt and state = 'running'
            for update;
    end if;
    if not found then
        return null;
    end if;
    if p_only_expired then
        perform 1 from trials where trial_id = v_ticket.trial_id for update skip locked;
        if not found and exists (select 1 from trials where trial_id = v_ticket.trial_id) then
            return null;
        end if;
    end if;
    v_is_stopped := hn_is_stopped_1(v_ticket.study_id, v_ticket.cancel_requested);
    perform hn_end_own_trial_1(
        v_ticket.trial_id,
        case when v_ticket.cancel_requested then hn_cancelled_result_1(p_result) else p_result end, '[]');
    select not v_is_stopped and (v_ticket.cancel_requested
            or v_ticket.infrastructure_failures + 1 < coalesce((spec ->> 'max_attempts')::numeric, 3))
        into v_retry from hn_studies where id = v_ticket.study_id;
    if v_is_stopped then
        perform hn_close_stopped_1(p_ticket, p_outcome);
    elsif v_retry then
        update hn_tickets set
            state = case when cancel_requested then 'cancelled' else 'waiting' end,
            infrastructure_failures = infrastructure_failures + 1, worker_id = null, lease_expires_at = null,
            queued_at = null, not_before = hn_now_1() + case when infrastructure_failures = 0 then 0
                else least(p_retry_delay * power(2, least(infrastructure_failures, 9)), 300) end
            where id = p_ticket;
    else
        update hn_tickets set
            state = 'closed', infrastructure_failures = infrastructure_failures + 1, lease_expires_at = null,
            closed_at = hn_now_1(), ending = p_outcome ->> 'ending', outcome = p_outcome
            where id = p_ticket;
    end if;
    update hn_attempts set ended_at = hn_now_1(), ending = p_outcome ->> 'ending', cause = p_outcome ->> 'cause',
        message = p_outcome ->> 'message'
        where ticket_id = p_ticket and attempt = p_attempt;
    return case when v_retry then 'retry' else 'close' end;
end $$;

-- Stops a study whose search space has no further point: nothing of it starts any more, and the coordinator's next ticks
-- cancel what has not begun. Not here: a million tickets take longer than a worker's statement may.
create or replace function hn_exhaust_1(p_study bigint, p_spec_version integer) returns void language plpgsql as $$
begin
    update hn_studies set stop_reason = coalesce(stop_reason, 'exhausted')
        where id = p_study and spec_version = p_spec_version;
end $$;

-- The audit is append-only: what was written stays as it is, for a year at least. Workers do not write to it.
create or replace function hn_guard_audit_1() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        if old.at < hn_now_1() - 365 * 86400.0 then
            return old;
        end if;
    end if;
    raise exception 'hn_audit is append-only: rows are deleted after a year, and never changed';
end $$;

do $$
begin
    if not exists (select 1 from pg_trigger where tgrelid = 'hn_audit'::regclass and tgname = 'hn_audit_rows') then
        create trigger hn_audit_rows before update or delete on hn_audit
            for each row execute function hn_guard_audit_1();
        create trigger hn_audit_table before truncate on hn_audit
            for each statement execute function hn_guard_audit_1();
    end if;
    -- The account of workers in deploy/ gets rights on every new table.
    if exists (select 1 from pg_roles where rolname = 'highnoon_worker') then
        revoke insert, update on hn_audit from highnoon_worker;
    end if;
end $$;

-- Notes an event of a study that asks to be notified of it; several before one is sent become one. A trial's end waits
-- here for another end of the same study at most, never for a study's row.
create or replace function hn_notify_1(p_study bigint, p_event text, p_ticket bigint) returns void language sql as $$
    insert into hn_notifications as n (study_id, event, ticket_id, count, seq, tries, at, next_at)
        select p_study, p_event, p_ticket, 1, 1, 0, hn_now_1(), hn_now_1() from hn_studies s
        where s.id = p_study
            and p_event in (select json_array_elements_text(s.spec -> 'notify' -> 'on'))
        on conflict (study_id, event) do update set
            ticket_id = excluded.ticket_id, count = n.count + 1, seq = n.seq + 1, at = excluded.at;
$$;

create or replace function hn_ticket_closed_1() returns trigger language plpgsql as $$
declare
    v_study record;
    v_best double precision;
begin
    select spec -> 'notify' ->> 'url' as url, spec ->> 'direction' = 'maximize' as maximize,
           spec -> 'notify' -> 'on' as events
        into v_study from hn_studies where id = new.study_id;
    if v_study.url is null then
        return null;
    end if;
    -- WENT_WRONG in states.py, and what a newer version has beside it.
    if new.ending not in ('completed', 'pruned', 'stopped', 'cancelled') then
        perform hn_notify_1(new.study_id, 'failed', new.id);
    elsif new.ending = 'completed' and new.value is not null and v_study.events::jsonb ? 'best' then
        -- Each as one step into the index of values: with a CASE the whole study is read at the end of each trial.
        if v_study.maximize then
            select max(value) into v_best from hn_tickets
                where study_id = new.study_id and ending = 'completed' and id <> new.id;
        else
            select min(value) into v_best from hn_tickets
                where study_id = new.study_id and ending = 'completed' and id <> new.id;
        end if;
        if v_best is null or (case when v_study.maximize then new.value > v_best else new.value < v_best end) then
            perform hn_notify_1(new.study_id, 'best', new.id);
        end if;
    end if;
    return null;
end $$;

create or replace function hn_study_over_1() returns trigger language plpgsql as $$
begin
    perform hn_notify_1(new.id, 'finished', null);
    return null;
end $$;

do $$
begin
    if not exists (select 1 from pg_trigger where tgrelid = 'hn_tickets'::regclass and tgname = 'hn_ticket_closed') then
        create trigger hn_ticket_closed after update of state on hn_tickets for each row
            when (new.state = 'closed' and old.state <> 'closed') execute function hn_ticket_closed_1();
        create trigger hn_study_over after update of state on hn_studies for each row
            when (new.state in ('finished', 'cancelled') and old.state <> new.state)
            execute function hn_study_over_1();
    end if;
end $$;
