-- What leaves: the journal, as far as each subscriber has read it, and what it has yet to deliver because of it
-- (docs/OUTBOX.md). The journal itself is the outbox; nothing is written here by whoever books.

create table outbox_subscriber (
    name   text        primary key,            -- his, broker, webhooks …
    since  timestamptz not null default now()
);

-- Up to where each shard's events were read. They have no gaps, so one number says it.
create table outbox_cursor (
    subscriber  text   not null references outbox_subscriber (name) on delete cascade,
    shard       int    not null,
    seq         bigint not null,
    primary key (subscriber, shard)
);

create table outbox_message (
    position      bigint      generated always as identity primary key,   -- the order in which they follow
    subscriber    text        not null references outbox_subscriber (name) on delete cascade,
    shard         int         not null,        -- of the event that it follows from
    seq           bigint      not null,
    n             int         not null,        -- of this event's messages, from 0
    aggregate     text        not null,        -- within one, the order is kept
    kind          text        not null,
    data          jsonb       not null,        -- ids; never who somebody is
    at            timestamptz not null,        -- of the event
    state         text        not null default 'waiting' check (state in ('waiting', 'dead')),
    due_at        timestamptz,                 -- null: another one of its aggregate comes first, or it is dead
    taken_by      bigint,                      -- the run that is delivering it, or was when it ended
    is_uncertain  boolean     not null default false,   -- an earlier try may have done it
    tries         int         not null default 0,
    trouble       text        not null default '',
    died_at       timestamptz,
    check ((state = 'dead') = (died_at is not null)),
    check (state = 'waiting' or due_at is null),
    unique (subscriber, shard, seq, n)         -- an event read twice writes nothing twice
);
create index outbox_message_due on outbox_message (subscriber, position) where due_at is not null;
create index outbox_message_of_aggregate on outbox_message (subscriber, aggregate, position);
create index outbox_message_dead on outbox_message (subscriber, position) where state = 'dead';
-- Nearly every message comes and goes within a second.
alter table outbox_message set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- Administrators and the outboxes hear of it with its commit.
create function tell_of_outbox() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox', new.subscriber);
    return null;
end
$$;
create trigger outbox_dead after update of state on outbox_message
    for each row when (old.state is distinct from new.state) execute function tell_of_outbox();
