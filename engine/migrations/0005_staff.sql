-- Who works here and signs in with a password: doctors, desks, offices, and outside systems.

create table staff (
    id               uuid primary key,
    username         text not null unique check (username = lower(username)),
    name             text not null,
    password_hash    text not null,          -- argon2id, with its parameters
    roles            text[] not null check (
        cardinality(roles) > 0
        and roles <@ array['doctor', 'desk', 'schedule_office', 'manager', 'partner']
    ),
    -- No references: who has left the hospital's files must not keep them from being imported.
    practitioner_id  text,                   -- the doctor that this is
    department_id    text,                   -- what they look after, with what is below it; null: everything
    channel          text not null check (
        channel in ('window', 'phone', 'referral', 'management', 'doctor', 'his')
    ),
    is_demo          boolean not null default false,   -- known password: never usable without --demo
    disabled         boolean not null default false,
    failed_count     int not null default 0,           -- wrong passwords since the last right one
    locked_until     timestamptz,
    created_at       timestamptz not null
);
