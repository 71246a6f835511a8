-- What takes something off a bill only once, and the desk's own receipts (docs/PRICES.md).

-- A coupon is money to whoever shows it: of its code there is a hash, and its last four signs for people.
create table coupon (
    id          uuid        primary key,
    code_hash   bytea       not null unique,       -- SHA-256
    tail        text        not null,
    name        text        not null,              -- what bills call it
    fen         int         not null default 0,    -- so much off …
    percent     smallint    not null default 0,    -- … or so many percent
    at_least    int         not null default 0,    -- of bills of so many fen
    kinds       text[]      not null,              -- engine/domain/price_rules.py Kind
    begins_at   timestamptz not null,
    ends_at     timestamptz not null,
    patient_id  uuid        references patient (id),  -- null: whoever shows it
    made_by     text        not null,
    made_at     timestamptz not null,
    voided_by   text,
    voided_at   timestamptz,
    bill_id     uuid,                              -- that has it; it may be about to be opened
    taken_at    timestamptz,
    check ((fen > 0 and percent = 0) or (fen = 0 and percent between 1 and 100)),
    check (at_least >= 0 and begins_at < ends_at),
    check ((bill_id is null) = (taken_at is null))
);
create index coupon_of_bill on coupon (bill_id) where bill_id is not null;
create index coupon_made on coupon (made_at);

-- Discounts that are given so many times and no more: to a patient who was never here (subject: the patient),
-- for a visit that was paid (subject: its appointment). Of two bills that want the last one, one has it.
create table price_claim (
    kind      text        not null check (kind in ('first_visit', 'free_follow_up')),
    subject   uuid        not null,
    nth       smallint    not null,
    bill_id   uuid        not null,
    taken_at  timestamptz not null,
    primary key (kind, subject, nth)
);
create index price_claim_of_bill on price_claim (bill_id);

-- Cash that a desk took or gave: numbered from 1 each day of the hospital's, without a gap. The number is given
-- before the bill hears of the money; one that the bill refused then stays, and is void.
create table cash_day (
    day    date primary key,
    given  int  not null default 0
);

create table cash_receipt (
    day         date        not null references cash_day (day),
    nth         int         not null,
    command_id  uuid        not null unique,       -- a retry has the same number
    kind        text        not null check (kind in ('in', 'out')),
    bill_id     uuid        not null,
    subject     uuid        not null,              -- the payment; the refund
    fen         int         not null check (fen > 0),
    staff_id    uuid        not null references staff (id),
    at          timestamptz not null,
    primary key (day, nth)
);
create index cash_receipt_of_staff on cash_receipt (staff_id, at);
create index cash_receipt_of_subject on cash_receipt (subject);
