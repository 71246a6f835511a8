-- What the gateways keep of bills that the hospital's own billing made (docs/HOSPITAL_BILLING.md). The bills
-- themselves, their money and their refunds are in the tables of 0027, like all others.
create table hospital_bill (
    bill_id     uuid        primary key,        -- of engine/domain/hospital_orders.py
    number      text        not null,           -- the hospital's
    revision    int         not null,           -- each is a bill of its own here
    patient_id  uuid        not null references patient (id),
    digest      bytea       not null,           -- of its lines, keyed: a revision never changes
    names       bytea,                          -- of its lines: clinical text, sealed with the patient's record key
    first_seen  timestamptz not null,
    unique (number, revision)
);
create index hospital_bill_of_patient on hospital_bill (patient_id);

-- What the billing asks to be given back, under its own number.
create table hospital_asked (
    refund_id   uuid        primary key,        -- ours, derived from theirs
    bill_id     uuid        not null,
    asked_as    text        not null,           -- their number of it
    reason      text        not null,           -- not_dispensed | not_done | corrected | other
    asked_at    timestamptz not null
);

-- What the billing was told, and what it said. A row ends the telling.
create table hospital_told (
    told_id     uuid        primary key,        -- our payment or refund
    bill_id     uuid        not null,
    kind        text        not null check (kind in ('payment', 'refund')),
    fen         bigint      not null,
    outcome     text        not null check (outcome in ('accepted', 'refused')),
    code        text        not null,           -- why it was refused
    receipt     text        not null,           -- theirs, where it was accepted
    told_at     timestamptz not null
);
create index hospital_told_of_bill on hospital_told (bill_id);
