-- What the actors write: shards and their fence, the journal, claims, and the projection.
-- Times are timestamptz (UTC); money is int fen; ids of people and appointments are uuid.

create table shard (
    id        int    primary key,
    epoch     bigint not null default 0,   -- raised by every takeover; a flush with an older one writes nothing
    seq       bigint not null default 0,   -- the last journal number; gapless, because it moves with its events
    fenced    bigint not null default 0    -- how often a zombie of this shard was kept from writing
);

create table event (
    shard    int         not null references shard (id),
    seq      bigint      not null,
    stream   text        not null,         -- an actor's key, e.g. schedule/D0012/2026-11-24
    version  int         not null,
    type     smallint    not null,         -- engine/journal/codec.py
    at       timestamptz not null,
    data     bytea       not null,         -- msgpack
    primary key (shard, seq),
    unique (stream, version)
);

-- Uniqueness that spans actors. A claim with an expiry gives way by itself once it has passed.
create table claim (
    scope       smallint not null,
    key         bytea    not null,
    owner       uuid     not null,
    expires_at  timestamptz,
    primary key (scope, key)
);

create table appointment (
    id           uuid        primary key,  -- derived from account and Idempotency-Key
    schedule_id  text        not null,
    slot_id      text        not null,
    seat         smallint    not null,     -- from 0, within its slot
    capacity     smallint    not null,     -- of the slot when the seat was given
    number       int         not null,     -- 序号, from 1, within its session
    patient_id   uuid        not null,
    account_id   uuid        not null,
    status       smallint    not null,     -- engine/domain/schedule.py Status
    reason       text,
    fee_fen      int         not null,
    starts_at    timestamptz not null,
    hold_until   timestamptz,
    created_at   timestamptz not null,
    updated_at   timestamptz not null,
    constraint appointment_within_capacity check (seat >= 0 and seat < capacity)
);
-- Statuses up to 4 hold their seat (pending, booked, arrived, fulfilled).
create unique index appointment_seat_once on appointment (slot_id, seat) where status <= 4;
create index appointment_of_patient on appointment (patient_id) where status <= 2;
create index appointment_of_account on appointment (account_id, created_at desc);

-- One round trip for a whole batch while every claim wins. Raises XL001 when one loses, XL002 when the
-- writer was fenced off: everything rolls back, and the caller goes the slower way or dies.
create function flush(
    p_shard int, p_epoch bigint,
    e_stream text[], e_version int[], e_type smallint[], e_at timestamptz[], e_data bytea[],
    d_scope smallint[], d_key bytea[], d_owner uuid[],
    c_scope smallint[], c_key bytea[], c_owner uuid[], c_expires timestamptz[],
    u_id uuid[], u_status smallint[], u_reason text[], u_at timestamptz[],
    i_id uuid[], i_schedule text[], i_slot text[], i_seat smallint[], i_capacity smallint[], i_number int[],
    i_patient uuid[], i_account uuid[], i_status smallint[], i_fee int[], i_starts timestamptz[],
    i_hold timestamptz[], i_at timestamptz[],
    o_schedule text[], o_practitioner text[], o_day date[], o_plan text[]
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
                                 status, fee_fen, starts_at, hold_until, created_at, updated_at)
        select i.id, i.schedule_id, i.slot_id, i.seat, i.capacity, i.number, i.patient_id, i.account_id,
               i.status, i.fee, i.starts_at, i.hold_until, i.at, i.at
          from unnest(i_id, i_schedule, i_slot, i_seat, i_capacity, i_number, i_patient, i_account,
                      i_status, i_fee, i_starts, i_hold, i_at)
               as i (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,
                     status, fee, starts_at, hold_until, at);
    end if;

    if cardinality(o_schedule) > 0 then
        -- From here on the actor is the truth: the catalog shows the plan it opened with, whatever was
        -- published between its look and this commit.
        insert into schedule (id, practitioner_id, day, plan, opened)
        select o.id, o.practitioner_id, o.day, o.plan::jsonb, true
          from unnest(o_schedule, o_practitioner, o_day, o_plan) as o (id, practitioner_id, day, plan)
        on conflict (id) do update set plan = excluded.plan, opened = true;
    end if;
    return first_seq;
end
$$;
