-- What the archiver says of itself, for the metrics of the gateways. Unlogged: it is about this living server, so
-- writing it makes no WAL to archive, and a restored server does not inherit it.

create unlogged table backup_status (
    id              bool        primary key check (id),  -- one row
    beat_at         timestamptz not null,                -- the archiver lived then
    archived_until  timestamptz,                         -- all commits up to this moment are in the second place
    waiting_since   timestamptz,                         -- of the oldest commit that is not; null: nothing waits
    base_at         timestamptz,                         -- the latest complete base backup
    failing         text        not null                 -- why; '': all is well
);
