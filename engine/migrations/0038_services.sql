-- Where the actors are, for services that have none of their own (docs/SERVICES.md).

-- The run of the service `booking` that is in force: one row, replaced at each of its starts.
create table shard_run (
    one           boolean     primary key default true check (one),
    nonce         bytea       not null check (octet_length(nonce) = 32),  -- new in each run: it goes into the links' secret
    shards        int         not null check (shards > 0),
    secret_print  bytea       not null,   -- of the token secret, which all services must share
    started_at    timestamptz not null default now()
);

create table shard_route (
    shard  int    primary key,
    host   text   not null,
    port   int    not null check (port between 1 and 65535),
    epoch  bigint not null                -- of the takeover that put it here: an older one cannot replace it
);

create function shard_routes_changed() returns trigger language plpgsql as $$
begin
    notify shard_route;
    return null;
end
$$;
create trigger changed after insert or update or delete on shard_run
    for each statement execute function shard_routes_changed();
create trigger changed after insert or update or delete on shard_route
    for each statement execute function shard_routes_changed();
