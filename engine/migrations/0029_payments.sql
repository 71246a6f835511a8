-- What the gateways must remember of providers beside the bills themselves (docs/PAYMENT.md).

-- What was asked of a provider for one attempt. Asked again it must be word for word the same: then it is the
-- same order over there, however often, and whoever asks.
create table payment_order (
    attempt_id   uuid        primary key,
    bill_id      uuid        not null,
    payer        uuid        not null,         -- the account whose WeChat pays
    provider     text        not null,
    description  text        not null,         -- the payer reads it: names no illness and nobody
    expires_at   timestamptz not null,         -- nobody can pay it any more from then on
    made_at      timestamptz not null
);
create index payment_order_of_bill on payment_order (bill_id);

-- Callbacks that were read, for all gateways: the same bytes again are somebody's who plays them back.
create table callback_seen (
    provider  text        not null,
    key       text        not null,
    until     timestamptz not null,
    primary key (provider, key)
);
create index callback_seen_until on callback_seen (until);

-- What a provider said, or somebody in its name, that was not believed. Nothing of what a stranger wrote: the
-- reason, and our own order number where there is one.
create table payment_alarm (
    id          bigint      generated always as identity primary key,
    hour        timestamptz not null,          -- the same words again within the hour are counted
    at          timestamptz not null,
    last_at     timestamptz not null,
    times       int         not null default 1,
    provider    text        not null,
    what        text        not null,          -- callback, query, refund, statement, hospital_billing
    why         text        not null,
    order_id    text        not null default '' check (order_id ~ '^[0-9a-f]{0,32}$'),
    bill_id     uuid,
    settled_at  timestamptz,
    settled_by  text,
    settled_why text,
    unique (provider, what, why, order_id, hour)
);
create index payment_alarm_open on payment_alarm (id) where settled_at is null;

-- Patients are told of their money, too.
alter table notice drop constraint notice_kind_check;
alter table notice add constraint notice_kind_check
    check (kind in ('ahead', 'leave_home', 'late', 'seat_again', 'no_seat', 'refunded'));

create index payment_unknown on payment (since) where state = 3;
