-- A number's whole life: who booked it and how, what came in its place, what became of it when its session was
-- called off; days that change while people are booked on them; waiting lists; and what has to be done next.

alter table schedule
    add column unfree jsonb not null default '{}';   -- slot -> seats blocked or cooling: in no appointment

alter table appointment
    add column department_id   text     not null default '',
    add column number_class_id text     not null default '',
    add column channel         smallint not null default 1,    -- engine/domain/policy.py Channel
    add column visit           smallint not null default 0,    -- 0 first, 1 follow-up
    add column replaces        uuid,                           -- the appointment that this one changes
    add column successor       uuid,                           -- the one that came in its place
    add column wish_id         uuid,                           -- the wish it was offered to
    add column changes         smallint not null default 0,    -- how often this booking was changed
    add column booked_by       text     not null default '',   -- staff who booked it; '' the account itself
    add column will_come       boolean  not null default false, -- the patient said so when asked
    add column fate            text;                           -- once its session was called off
create index appointment_of_schedule on appointment (schedule_id);
create index appointment_ahead on appointment (starts_at) where status = 2;
create index appointment_in_place_of on appointment (replaces) where status = 1 and replaces is not null;
create index appointment_visited on appointment (patient_id, department_id, starts_at) where status = 4;

create table wish (
    id              uuid        primary key,         -- derived from account and Idempotency-Key
    account_id      uuid        not null references account (id),
    patient_ids     uuid[]      not null,
    department_id   text        not null,
    schedules       jsonb       not null,            -- schedule -> slots that would do; [] any
    wanted          jsonb       not null,            -- as it was asked for
    priority        int         not null default 0,
    replaces        uuid,                            -- a booked appointment to be given up for it
    status          text        not null,            -- waiting | offered | met | ended
    reason          text,                            -- why it ended
    appointment_id  uuid,                            -- what is offered, or met it
    until           timestamptz not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null
);
create index wish_of_account on wish (account_id, created_at desc);
create index wish_open on wish (department_id) where status in ('waiting', 'offered');

-- What has to be done next, across actors: written with the events that make it necessary, done at least once.
create table errand (
    id          bigint generated always as identity primary key,
    kind        text        not null,                -- actors/errands.py
    key         text        not null,
    data        jsonb       not null,
    due_at      timestamptz not null default now(),
    tries       int         not null default 0,
    trouble     text,                                -- why the last try failed
    created_at  timestamptz not null default now(),
    unique (kind, key)
);
create index errand_due on errand (due_at);

drop function flush;

create function flush_more(more jsonb) returns void language plpgsql as $$
begin
    -- `unfree` and `plan` are of the schedule's own actor: nobody else writes an opened schedule.
    insert into schedule (id, practitioner_id, day, plan, opened)
    select p.key, left(p.key, length(p.key) - 9), to_date(right(p.key, 8), 'YYYYMMDD'), p.value, true
      from jsonb_each(more -> 'plans') p
    on conflict (id) do update set plan = excluded.plan, opened = true;

    update schedule s set unfree = u.value from jsonb_each(more -> 'unfree') u where s.id = u.key;

    update appointment a
       set replaces = (h ->> 1)::uuid, wish_id = (h ->> 2)::uuid, changes = (h ->> 3)::smallint,
           booked_by = h ->> 4
      from jsonb_array_elements(more -> 'held') h where a.id = (h ->> 0)::uuid;

    -- In two steps: each slot moves to where the next one is still.
    update appointment a set slot_id = 'moving ' || (m ->> 1)
      from jsonb_array_elements(more -> 'moved') m where a.id = (m ->> 0)::uuid;
    update appointment a
       set slot_id = m ->> 1, starts_at = to_timestamp((m ->> 2)::bigint / 1000.0)
      from jsonb_array_elements(more -> 'moved') m where a.id = (m ->> 0)::uuid;

    update appointment a set fate = f.fate, successor = f.successor
      from (select distinct on (f ->> 0) (f ->> 0)::uuid as id, f ->> 1 as fate, (f ->> 2)::uuid as successor
              from jsonb_array_elements(more -> 'fates') with ordinality as e (f, n)
             order by f ->> 0, n desc) f
     where a.id = f.id;

    update appointment a set successor = (x ->> 1)::uuid
      from jsonb_array_elements(more -> 'successors') x where a.id = (x ->> 0)::uuid;

    update appointment set will_come = true
     where id in (select c::uuid from jsonb_array_elements_text(more -> 'coming') c);

    update wish w set status = x.status, appointment_id = coalesce(x.appointment, w.appointment_id),
                      updated_at = now()
      from (select distinct on (x ->> 0) (x ->> 0)::uuid as id, x ->> 1 as status, (x ->> 2)::uuid as appointment
              from jsonb_array_elements(more -> 'wishes') with ordinality as e (x, n)
             order by x ->> 0, n desc) x
     where w.id = x.id and w.status in ('waiting', 'offered');

    insert into claim (scope, key, owner, expires_at)
    select distinct on (1, 2) (y ->> 0)::smallint, decode(y ->> 1, 'hex'), (y ->> 2)::uuid,
           to_timestamp((y ->> 3)::bigint / 1000.0)
      from jsonb_array_elements(more -> 'yields') with ordinality as e (y, n)
     order by 1, 2, n desc
    on conflict (scope, key) do update set owner = excluded.owner, expires_at = excluded.expires_at
     where claim.expires_at < clock_timestamp();

    -- Two actors may ask for the same errand in one batch.
    insert into errand (kind, key, data)
    select distinct on (e ->> 0, e ->> 1) e ->> 0, e ->> 1, e -> 2
      from jsonb_array_elements(more -> 'errands') with ordinality as x (e, n)
     order by e ->> 0, e ->> 1, n desc
    on conflict (kind, key) do update set data = excluded.data, due_at = now(), tries = 0;
    if jsonb_array_length(more -> 'errands') > 0 then
        perform pg_notify('errand', '');
    end if;
end
$$;

-- As in 0001, with more of the appointment, and the rare rest as one document.
create function flush(
    p_shard int, p_epoch bigint,
    e_stream text[], e_version int[], e_type smallint[], e_at timestamptz[], e_data bytea[],
    d_scope smallint[], d_key bytea[], d_owner uuid[],
    c_scope smallint[], c_key bytea[], c_owner uuid[], c_expires timestamptz[],
    u_id uuid[], u_status smallint[], u_reason text[], u_at timestamptz[],
    i_id uuid[], i_schedule text[], i_slot text[], i_seat smallint[], i_capacity smallint[], i_number int[],
    i_patient uuid[], i_account uuid[], i_status smallint[], i_fee int[], i_starts timestamptz[],
    i_hold timestamptz[], i_at timestamptz[],
    i_department text[], i_class text[], i_channel smallint[], i_visit smallint[],
    o_schedule text[], o_practitioner text[], o_day date[], o_plan text[],
    p_more text
) returns bigint language plpgsql as $$
declare
    first_seq bigint;
    won int;
begin
    update shard set seq = seq + cardinality(e_stream)
     where id = p_shard and epoch = p_epoch
    returning seq - cardinality(e_stream) into first_seq;
    if not found then
        raise exception 'shard % is no longer at epoch %', p_shard, p_epoch using errcode = 'XL002';
    end if;

    if cardinality(d_scope) > 0 then
        delete from claim using unnest(d_scope, d_key, d_owner) as d (scope, key, owner)
         where claim.scope = d.scope and claim.key = d.key and claim.owner = d.owner;
    end if;

    if cardinality(c_scope) > 0 then
        insert into claim (scope, key, owner, expires_at)
        select * from unnest(c_scope, c_key, c_owner, c_expires)
        on conflict (scope, key) do update
           set owner = excluded.owner, expires_at = excluded.expires_at
         where claim.owner = excluded.owner or claim.expires_at < clock_timestamp();
        get diagnostics won = row_count;
        if won < cardinality(c_scope) then
            raise exception 'a claim was lost' using errcode = 'XL001';
        end if;
    end if;

    insert into event (shard, seq, stream, version, type, at, data)
    select p_shard, first_seq + e.n, e.stream, e.version, e.type, e.at, e.data
      from unnest(e_stream, e_version, e_type, e_at, e_data)
           with ordinality as e (stream, version, type, at, data, n);

    if cardinality(u_id) > 0 then
        update appointment a
           set status = u.status, reason = u.reason, updated_at = u.at
          from unnest(u_id, u_status, u_reason, u_at) as u (id, status, reason, at)
         where a.id = u.id;
    end if;

    if cardinality(i_id) > 0 then
        insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,
                                 status, fee_fen, starts_at, hold_until, created_at, updated_at,
                                 department_id, number_class_id, channel, visit)
        select i.id, i.schedule_id, i.slot_id, i.seat, i.capacity, i.number, i.patient_id, i.account_id,
               i.status, i.fee, i.starts_at, i.hold_until, i.at, i.at,
               i.department, i.class, i.channel, i.visit
          from unnest(i_id, i_schedule, i_slot, i_seat, i_capacity, i_number, i_patient, i_account,
                      i_status, i_fee, i_starts, i_hold, i_at, i_department, i_class, i_channel, i_visit)
               as i (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,
                     status, fee, starts_at, hold_until, at, department, class, channel, visit);
    end if;

    if cardinality(o_schedule) > 0 then
        -- From here on the actor is the truth: the catalog shows the plan it opened with, whatever was
        -- published between its look and this commit.
        insert into schedule (id, practitioner_id, day, plan, opened)
        select o.id, o.practitioner_id, o.day, o.plan::jsonb, true
          from unnest(o_schedule, o_practitioner, o_day, o_plan) as o (id, practitioner_id, day, plan)
        on conflict (id) do update set plan = excluded.plan, opened = true;
    end if;

    if p_more is not null then
        perform flush_more(p_more::jsonb);
    end if;
    return first_seq;
end
$$;
