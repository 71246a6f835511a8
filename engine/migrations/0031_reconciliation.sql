-- Reconciliation and the day's end (docs/RECONCILIATION.md): what others say of a day, what differed from what
-- we have booked, and days that are closed. A channel is a provider, 'bookings' or 'hospital'. Money is fen.

-- Payments by the day on which they were paid, however late we heard of it.
create index payment_of_day on payment (provider, (coalesce(paid_at, since))) where received > 0;

-- What patients gave that is nobody's yet, what lies in suspense and what is owed back, at the end of any day.
create index posting_transient on posting (account, at) include (fen)
    where account in ('patient', 'suspense', 'refunds_payable');
create index bill_paid on bill (id) include (fen) where status = 'paid';
create index bill_owing on bill (id) include (owed_back) where owed_back > 0;

-- The latest statement of a day, as fetched.
create table statement (
    channel     text        not null,
    day         date        not null,
    is_there    boolean     not null,                -- false: they say that there is none
    fetched_at  timestamptz not null,
    primary key (channel, day)
);

create table statement_row (
    channel       text        not null,
    day           date        not null,
    n             int         not null,
    kind          text        not null check (kind in ('payment', 'refund')),
    order_id      uuid,                              -- our payment or refund; null: not spelled like one of ours
    number        text        not null,              -- as they spell it
    reference     text        not null,              -- theirs
    fen           bigint      not null,
    at            timestamptz not null,
    payment_id    uuid,                              -- of a refund: whose money goes back
    fee_millifen  bigint      not null,              -- thousandths of a fen; less than 0: given back
    currency      text        not null,
    state         text        not null check (state in ('done', 'open', 'failed')),
    primary key (channel, day, n)
);
create index statement_row_of_order on statement_row (order_id) where order_id is not null;

create table reconciliation (
    id           bigint      generated always as identity primary key,
    channel      text        not null,
    day          date        not null,
    begun_at     timestamptz not null,
    ended_at     timestamptz not null,
    is_complete  boolean     not null,               -- the statement was there, or there was nothing to compare
    why          text        not null,               -- it is not complete
    asked_by     text        not null,               -- username; '': the nightly round
    sums         jsonb       not null,               -- payments and refunds: matched, ours, theirs: number, fen
    healed       int         not null,               -- commands that were given because of differences
    left_open    int         not null
);
create index reconciliation_of_day on reconciliation (channel, day, id desc);

create table difference (
    id          uuid        primary key default gen_random_uuid(),
    channel     text        not null,
    day         date        not null,
    kind        text        not null,                -- engine/domain/reconciliation.py Kind
    subject     text        not null,                -- what it is about: the same in each run
    money       text        not null check (money in ('payment', 'refund')),
    ours        bigint      not null,                -- fen of that day on our side
    theirs      bigint      not null,
    heal        text        not null,                -- engine/domain/reconciliation.py Heal
    tried       int         not null default 0,      -- how often it was
    said        text        not null default '',     -- what came of the last try
    bill_id     uuid,
    order_id    uuid,                                -- our payment or refund
    evidence    jsonb       not null,
    -- open: for the cashier. waiting: time or the next statement will tell. explained: and right.
    -- healed, gone: a later run has not found it any more. settled: by a person.
    state       text        not null check (state in ('open', 'waiting', 'explained', 'healed', 'gone', 'settled')),
    found_at    timestamptz not null,
    found_by    bigint      not null references reconciliation (id),
    seen_by     bigint      not null references reconciliation (id),   -- the last run that found it
    closed_at   timestamptz,
    closed_by   bigint      references reconciliation (id),
    settled_by  uuid,
    settled_name text       not null default '',
    settled_why text        not null default '',
    unique (channel, day, kind, subject),
    check ((closed_at is null) = (state in ('open', 'waiting')))
);
create index difference_open on difference (day desc, id) where state in ('open', 'waiting');
create index difference_by_day on difference (day desc, id);

-- A day that is closed: its figures as they were then. What comes later is an adjustment of the day on which
-- it comes.
create table closed_day (
    day          date        primary key,
    closed_at    timestamptz not null,
    closed_by    uuid        not null,
    closed_name  text        not null,
    note         text        not null,
    figures      jsonb       not null                -- engine/records/settlement.py Figures
);
create trigger only_added before update or delete or truncate on closed_day
    for each statement execute function only_added();

create table adjustment (
    of_day        date        not null references closed_day (day),
    channel       text        not null,
    n             int         not null,              -- of that day and channel
    day           date        not null,              -- on which it came
    at            timestamptz not null,
    payments      int         not null,              -- more or fewer than were counted before
    payments_fen  bigint      not null,
    refunds       int         not null,
    refunds_fen   bigint      not null,
    fee_millifen  bigint      not null,
    primary key (of_day, channel, n)
);
create index adjustment_by_day on adjustment (day);
create trigger only_added before update or delete or truncate on adjustment
    for each statement execute function only_added();
