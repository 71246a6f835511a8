-- Who is signed in, where, and until when. A token proves itself; here is where it can be taken back.

create table session (
    id            uuid        primary key,
    kind          text        not null check (kind in ('account', 'staff')),
    owner         uuid        not null,             -- the account or the staff member
    transport     text        not null check (transport in ('bearer', 'cookie')),
    method        text        not null,             -- how they proved who they are: wechat, password, oidc
    device        text        not null,             -- a few known words, never what a client called itself
    secret_hash   bytea       unique,               -- SHA-256 of a cookie's secret
    generation    int         not null default 0,   -- of the refresh token that is good now
    rotated_at    timestamptz not null,             -- when that one was given out
    created_at    timestamptz not null,
    last_seen_at  timestamptz not null,             -- some seconds late; of patients the last refresh
    idle_seconds  int         check (idle_seconds > 0),   -- null: it may rest as long as it likes
    ends_at       timestamptz not null check (ends_at > created_at),   -- whatever is done until then
    lives_until   timestamptz not null,             -- when the last thing that it gave out ends by itself
    revoked_at    timestamptz,
    revoked_why   text,
    check ((revoked_at is null) = (revoked_why is null)),
    check ((transport = 'cookie') = (secret_hash is not null))
);
create index session_of_owner on session (owner) where revoked_at is null;
create index session_revoked on session (revoked_at) where revoked_at is not null;
create index session_revoked_alive on session (lives_until) where revoked_at is not null;
create index session_by_end on session (ends_at);

-- However a session is revoked, every gateway hears of it with the commit.
create function tell_revoked_session() returns trigger language plpgsql as $$
begin
    perform pg_notify('session', replace(new.id::text, '-', '') || ' ' || ceil(extract(epoch from new.lives_until))::bigint);
    return null;
end
$$;
create trigger session_told after update on session for each row
    when (old.revoked_at is null and new.revoked_at is not null) execute function tell_revoked_session();

-- Rights travel inside tokens. Whoever changes those of a person, by whatever way, ends that person's sessions in
-- the same transaction. `xinglin.spared` (engine/records/sessions.py) is what a change of password leaves: one
-- session's id, or all where the password is the same and only its hash is new.
create function end_sessions_of_changed_staff() returns trigger language plpgsql as $$
declare
    was    jsonb := to_jsonb(old);
    is_now jsonb;
    spared text  := '';
    why    text;
begin
    if tg_op = 'DELETE' then
        why := 'disabled';
    else
        is_now := to_jsonb(new);
        if new.disabled and not old.disabled then
            why := 'disabled';
        elsif exists (
            select from unnest(array['roles', 'practitioner_id', 'department_id', 'channel', 'campus']) as told
             where was -> told is distinct from is_now -> told
        ) then
            why := 'rights_changed';
        elsif new.password_hash <> old.password_hash then
            spared := coalesce(current_setting('xinglin.spared', true), '');
            why := case when spared = 'all' then null else 'password_changed' end;
        end if;
    end if;
    if why is not null then
        update session set revoked_at = now(), revoked_why = why
         where owner = old.id and kind = 'staff' and revoked_at is null
           and replace(id::text, '-', '') <> spared;
    end if;
    return null;
end
$$;
create trigger staff_sessions after update or delete on staff for each row
    execute function end_sessions_of_changed_staff();
