-- Money: what bills write beside their events, and how they hear of their seats (docs/PAYMENT.md). Only the
-- journal writes these tables. Money is fen; amounts never go below 0 but in `posting`.

create table bill (
    id               uuid        primary key,        -- a registration's first bill: its appointment's
    account_id       uuid        not null,           -- that opened it
    patient_id       uuid        not null,
    order_no         text        not null,           -- what it is for: the appointment's or the hospital's own
    lines            jsonb       not null,           -- engine/domain/price_rules.py Line, in its fields' order
    discounts        jsonb       not null,           -- the same of Discount
    fen              bigint      not null check (fen >= 0),   -- after discounts
    pay_by           timestamptz,                    -- null: whenever
    department_id    text        not null,
    number_class_id  text        not null,
    appointment_id   uuid,                           -- that it is for now; null: none
    starts_at        timestamptz,                    -- of that appointment
    seat             smallint    not null,           -- engine/domain/payment.py Seat
    status           text        not null,           -- engine/domain/payment.py Status
    closed           text        not null,           -- why nothing is to be paid any more; '': it is
    is_deferred      boolean     not null,           -- to be paid at the hospital
    is_settled       boolean     not null,
    paid_by          uuid,                           -- the payment whose money is the bill's
    paid             bigint      not null,
    refunded         bigint      not null,
    owed_back        bigint      not null,
    kept             bigint      not null,
    opened_at        timestamptz not null,
    updated_at       timestamptz not null,
    version          int         not null            -- of its stream
);
create index bill_of_appointment on bill (appointment_id) where appointment_id is not null;
create index bill_of_account on bill (account_id, opened_at desc);
create index bill_of_patient on bill (patient_id, opened_at desc);
create index bill_for_the_desk on bill (account_id) where status = 'at_hospital';

-- An attempt to pay.
create table payment (
    id              uuid        primary key,         -- the order number at the provider, in hex
    bill_id         uuid        not null,
    provider        text        not null,            -- wechat_pay | alipay | at_hospital
    merchant_id     text        not null,            -- ours there
    fen             bigint      not null,            -- that was asked for
    state           smallint    not null,            -- engine/domain/payment.py Paying
    code            text        not null,            -- why it did not begin
    transaction_id  text        not null,            -- theirs; at the desk: the receipt's number
    received        bigint      not null,
    is_matched      boolean     not null,            -- the money is the bill's
    begun_at        timestamptz not null,
    since           timestamptz not null,            -- when it came to its state
    paid_at         timestamptz                      -- as the provider says
);
create index payment_of_bill on payment (bill_id);
create index payment_by_transaction on payment (provider, transaction_id) where transaction_id <> '';
create index payment_received on payment (provider, since) where received > 0;

create table refund (
    id           uuid        primary key,            -- the order number of the refund there, in hex
    bill_id      uuid        not null,
    payment_id   uuid        not null,
    fen          bigint      not null check (fen > 0),
    cause        text        not null,
    state        smallint    not null,               -- engine/domain/payment.py Refunding
    code         text        not null,               -- why it was refused
    provider     text        not null,               -- that gave it back; '': nobody yet
    reference    text        not null,
    begun_at     timestamptz not null,
    since        timestamptz not null                -- when it came to its state; once done: when it was done
);
create index refund_of_bill on refund (bill_id);
create index refund_open on refund (since) where state < 5;
create index refund_done on refund (provider, since) where state = 5;

-- The ledger: positive is debit. Those of one event sum to 0.
create table posting (
    bill_id  uuid        not null,
    version  int         not null,                   -- of the event in the bill's stream
    n        smallint    not null,                   -- of the posting, from 1
    at       timestamptz not null,
    account  text        not null,                   -- engine/domain/ledger.py
    fen      bigint      not null,
    primary key (bill_id, version, n)
);
create index posting_by_time on posting (at);
create trigger only_added before update or delete or truncate on posting
    for each statement execute function only_added();

alter function flush_more(jsonb) rename to flush_of_schedules_and_rooms;

create function flush_of_bills(more jsonb) returns void language plpgsql as $$
declare
    bills jsonb := more -> 'bills';
    due jsonb := more -> 'due';
begin
    if bills <> '{}' then
        -- Whoever changes such a number now waits until this is committed, and finds the bill; who did it
        -- before has committed: `look` finds that.
        perform 1 from appointment a
          where a.id in (select (v ->> 8)::uuid from jsonb_each(bills) x (k, v)
                          where not exists (select from bill b
                                             where b.id = x.k::uuid
                                               and b.appointment_id is not distinct from (x.v ->> 8)::uuid))
          order by a.id for share;

        insert into bill (id, account_id, patient_id, order_no, lines, discounts, fen, pay_by, department_id,
                          number_class_id, appointment_id, starts_at, seat, status, closed, is_deferred,
                          is_settled, paid_by, paid, refunded, owed_back, kept, opened_at, updated_at, version)
        select k::uuid, (v ->> 0)::uuid, (v ->> 1)::uuid, v ->> 2, v -> 3, v -> 4, (v ->> 5)::bigint,
               to_timestamp((v ->> 6)::bigint / 1000.0), v -> 7 ->> 0, v -> 7 ->> 1, (v ->> 8)::uuid,
               to_timestamp((v ->> 9)::bigint / 1000.0), (v ->> 10)::smallint, v ->> 11, v ->> 12,
               (v ->> 13)::boolean, (v ->> 14)::boolean, (v ->> 15)::uuid, (v ->> 16)::bigint,
               (v ->> 17)::bigint, (v ->> 18)::bigint, (v ->> 19)::bigint,
               to_timestamp((v ->> 20)::bigint / 1000.0), to_timestamp((v ->> 20)::bigint / 1000.0),
               (v ->> 21)::int
          from jsonb_each(bills) x (k, v) order by k
        on conflict (id) do update
           set appointment_id = excluded.appointment_id, starts_at = excluded.starts_at, seat = excluded.seat,
               status = excluded.status, closed = excluded.closed, is_deferred = excluded.is_deferred,
               is_settled = excluded.is_settled, paid_by = excluded.paid_by, paid = excluded.paid,
               refunded = excluded.refunded, owed_back = excluded.owed_back, kept = excluded.kept,
               updated_at = excluded.updated_at, version = excluded.version;

        insert into payment (id, bill_id, provider, merchant_id, fen, state, code, transaction_id, received,
                             is_matched, begun_at, since, paid_at)
        select k::uuid, (v ->> 0)::uuid, v ->> 1, v ->> 2, (v ->> 3)::bigint, (v ->> 4)::smallint, v ->> 5,
               v ->> 6, (v ->> 7)::bigint, (v ->> 8)::boolean, to_timestamp((v ->> 9)::bigint / 1000.0),
               to_timestamp((v ->> 10)::bigint / 1000.0), to_timestamp((v ->> 11)::bigint / 1000.0)
          from jsonb_each(more -> 'payments') x (k, v)
        on conflict (id) do update
           set state = excluded.state, code = excluded.code, transaction_id = excluded.transaction_id,
               received = excluded.received, is_matched = excluded.is_matched, since = excluded.since,
               paid_at = excluded.paid_at
         where payment.bill_id = excluded.bill_id;  -- ids are derived from the bill's

        insert into refund (id, bill_id, payment_id, fen, cause, state, code, provider, reference, begun_at,
                            since)
        select k::uuid, (v ->> 0)::uuid, (v ->> 1)::uuid, (v ->> 2)::bigint, v ->> 3, (v ->> 4)::smallint,
               v ->> 5, v ->> 6, v ->> 7, to_timestamp((v ->> 8)::bigint / 1000.0),
               to_timestamp((v ->> 9)::bigint / 1000.0)
          from jsonb_each(more -> 'refunds') x (k, v)
        on conflict (id) do update
           set state = excluded.state, code = excluded.code, provider = excluded.provider,
               reference = excluded.reference, since = excluded.since
         where refund.bill_id = excluded.bill_id;

        insert into posting (bill_id, version, n, at, account, fen)
        select (v ->> 0)::uuid, (v ->> 1)::int, (v ->> 2)::smallint,
               to_timestamp((v ->> 3)::bigint / 1000.0), v ->> 4, (v ->> 5)::bigint
          from jsonb_array_elements(more -> 'postings') v;
    end if;

    if due <> '[]' then
        -- As the errands of schedules, but some are for later.
        insert into errand (kind, key, data, due_at)
        select distinct on (e ->> 0, e ->> 1)
               e ->> 0, e ->> 1, e -> 2, now() + make_interval(secs => (e ->> 3)::bigint / 1000.0)
          from jsonb_array_elements(due) with ordinality as x (e, n)
         order by e ->> 0, e ->> 1, n desc
        on conflict (kind, key) do update set data = excluded.data, due_at = excluded.due_at, tries = 0;
        perform pg_notify('errand', '') from jsonb_array_elements(due) e where (e ->> 3)::bigint <= 0 limit 1;
    end if;

    -- Sessions that were moved: their bills' visits begin at another time.
    insert into errand (kind, key, data)
    select 'bill_seat', replace(m ->> 0, '-', ''),
           jsonb_build_object('cause', 'moved', 'at', (extract(epoch from now()) * 1000)::bigint)
      from jsonb_array_elements(more -> 'moved') m
     where exists (select from bill b where b.appointment_id = (m ->> 0)::uuid)
    on conflict (kind, key) do update set data = excluded.data, due_at = now(), tries = 0;
    if found then
        perform pg_notify('errand', '');
    end if;
end
$$;

create function flush_more(more jsonb) returns void language plpgsql as $$
begin
    perform flush_of_schedules_and_rooms(more);
    if more -> 'bills' <> '{}' or more -> 'due' <> '[]' or more -> 'moved' <> '[]' then
        perform flush_of_bills(more);
    end if;
end
$$;

-- As in 0007, and at the end what bills hear of their seats.
create or replace function flush(
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
    -- Numbers that were given up, or whose patients did not come: their bills must hear of it.
    if 5 = any (u_status) or 6 = any (u_status) then
        insert into errand (kind, key, data)
        select 'bill_seat', replace(u.id::text, '-', ''),
               jsonb_build_object('cause', case when u.status = 6 then 'no_show' else u.reason end,
                                  'at', (extract(epoch from u.at) * 1000)::bigint)
          from unnest(u_id, u_status, u_reason, u_at) as u (id, status, reason, at)
         where u.status in (5, 6) and exists (select from bill b where b.appointment_id = u.id)
        on conflict (kind, key) do update set data = excluded.data, due_at = now(), tries = 0;
        if found then
            perform pg_notify('errand', '');
        end if;
    end if;
    return first_seq;
end
$$;
