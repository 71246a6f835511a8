-- Who did what and who read whose data: written once, in the transaction of the change or the reading, and
-- chained into signed blocks (docs/AUDIT.md). The journal (table event) is the other half of it.

create table audit_entry (
    id           bigint      generated always as identity primary key,
    -- Which transaction wrote it: blocks are cut where all transactions before have ended.
    xid          xid8        not null default pg_current_xact_id(),
    at           timestamptz not null default clock_timestamp(),
    action       text        not null,          -- staff_disabled, vitals_read …
    by_kind      text        not null check (by_kind in ('staff', 'account', 'operator', 'system', 'nobody')),
    by_id        uuid,                          -- of staff or account
    by_name      text,                          -- user name of staff; of the machine's user where an operator
    subjects     uuid[]      not null default '{}',   -- patients whose data it is
    object_kind  text,
    object_id    text,
    outcome      text        not null default 'done' check (outcome in ('done', 'refused', 'failed')),
    reason       text,
    request_id   text,
    address      text,
    gateway      text,
    detail       jsonb                          -- small, and nobody's data
);
create index audit_entry_in_order on audit_entry (xid, id);
create index audit_entry_by_time on audit_entry (at);
create index audit_entry_by_whom on audit_entry (by_id, at);
create index audit_entry_of_subject on audit_entry using gin (subjects);

-- Block n covers the entries of ended transactions and the shards' events since block n - 1.
create table audit_block (
    number     bigint primary key,
    body       bytea  not null,                 -- engine/audit/blocks.py
    hash       bytea  not null,                 -- SHA-256 of the last block's hash and the body
    signature  bytea  not null                  -- Ed25519, of number and hash
);

-- What was written stays, whoever asks: also the owner has to become the maintenance role first.
create function only_added() returns trigger language plpgsql as $$
begin
    if current_user = 'xinglin_maintenance' then
        return null;  -- of a statement, so the value says nothing
    end if;
    raise exception '% is only added to: % is refused', tg_table_name, tg_op using errcode = '42501';
end
$$;
create trigger only_added before update or delete or truncate on audit_entry
    for each statement execute function only_added();
create trigger only_added before update or delete or truncate on audit_block
    for each statement execute function only_added();
create trigger only_added before update or delete or truncate on event
    for each statement execute function only_added();

-- Roles belong to the whole server, so another database of it may have made them already.
do $$
declare
    name text;
begin
    foreach name in array array['xinglin_app', 'xinglin_maintenance'] loop
        if not exists (select from pg_roles where rolname = name) then
            begin
                execute format('create role %I', name);
            exception
                when duplicate_object or unique_violation then null;
                when insufficient_privilege then
                    raise exception 'user % may not create roles: let an administrator of the server run'
                        ' "create role xinglin_app; create role xinglin_maintenance; grant xinglin_app to %"',
                        current_user, current_user using errcode = '42501';
            end;
        end if;
    end loop;
    if not (select rolsuper from pg_roles where rolname = current_user) then
        begin
            execute format('grant xinglin_app to %I', current_user);
        exception when others then null;  -- what counts is whether it can be used: below
        end;
        begin
            perform set_config('role', 'xinglin_app', true);
        exception when others then
            raise exception 'user % may not act as xinglin_app: let an administrator of the server run'
                ' "grant xinglin_app to %"', session_user, session_user using errcode = '42501';
        end;
        perform set_config('role', 'none', true);
    end if;
end
$$;

-- What gateways and shards may do. Called after each migration, so that new tables are in it, too.
create function grant_app_rights() returns void language plpgsql as $$
declare
    here text := quote_ident(current_schema());
begin
    execute format('grant usage on schema %s to xinglin_app', here);
    execute format('grant select, insert, update, delete on all tables in schema %s to xinglin_app', here);
    execute format('grant usage, select on all sequences in schema %s to xinglin_app', here);
    revoke update, delete, truncate on event, audit_entry from xinglin_app;
    -- Number, transaction and time of an entry are the database's to say.
    revoke insert on audit_entry from xinglin_app;
    grant insert (action, by_kind, by_id, by_name, subjects, object_kind, object_id, outcome, reason,
                  request_id, address, gateway, detail) on audit_entry to xinglin_app;
    revoke insert, update, delete, truncate on audit_block, migration, vault_key from xinglin_app;
end
$$;
do $$
declare
    here text := quote_ident(current_schema());
begin
    execute format('grant usage on schema %s to xinglin_maintenance', here);
    grant select, update, delete, truncate on event, audit_entry, audit_block to xinglin_maintenance;
end
$$;
