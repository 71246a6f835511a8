-- What others are told of events (docs/EVENTS.md): who we are to them, webhooks, and what became of deliveries.

-- One row. The id is the `source` of every event; the secret signs the cursors of the feed, so that one of
-- another hospital's, or of a database that was put back, is not taken for ours.
create table event_source (
    "only"  boolean primary key default true check ("only"),
    id      uuid    not null default gen_random_uuid(),
    secret  bytea   not null default sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
);
insert into event_source default values;

create table webhook (
    id             uuid        primary key,
    partner_id     uuid,                       -- whose it is; null: the hospital's own, kept by its administrators
    address        text        not null check (length(address) <= 2048),
    types          text[]      not null,       -- of web/events/vocabulary.py; appointment.* and * as well
    data_key       bytea,                      -- of the vault; its secrets are sealed with it
    secret         bytea       not null,       -- sealed
    secret_before  bytea,                      -- sealed; signs as well until then
    before_until   timestamptz,
    made_at        timestamptz not null,
    made_by        text        not null,
    failing_since  timestamptz,                -- no delivery has come through since; null: the last one did
    disabled_at    timestamptz,
    disabled_why   text        not null default ''   -- asked | failing | gone | too_far_behind
);
create index webhook_of_partner on webhook (partner_id);

-- What a webhook has not got yet. The event itself stays in the journal, and is read again for each try.
create table webhook_message (
    webhook_id  uuid        not null references webhook (id) on delete cascade,
    shard       int         not null,
    seq         bigint      not null,
    stream      text        not null,          -- in order within it
    tries       int         not null default 0,
    due_at      timestamptz not null,
    is_dead     boolean     not null default false,  -- refused again and again: others go on without it
    primary key (webhook_id, shard, seq)
);
create index webhook_message_again on webhook_message (webhook_id, stream) where tries > 0 and not is_dead;

-- Every try. Nothing of what they answered but its status.
create table webhook_delivery (
    id          bigint      generated always as identity primary key,
    webhook_id  uuid        not null references webhook (id) on delete cascade,
    event_id    text        not null,          -- {shard}-{seq}, or ping-…
    type        text        not null,
    at          timestamptz not null,
    attempt     int         not null,          -- from 1; 0: asked for by a person
    status      int,                           -- of HTTP; null: no answer
    ms          int         not null,
    trouble     text        not null           -- '': delivered
);
create index webhook_delivery_latest on webhook_delivery (webhook_id, id desc);
create index webhook_delivery_at on webhook_delivery (at);
