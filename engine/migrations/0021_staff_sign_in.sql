-- How staff sign in: failures by address, second factors, recovery codes, changes of a password.

-- failed_count and locked_until are, from here on, of all addresses together from which the person has never
-- signed in (engine/domain/lockout.py).
alter table staff
    add column lock_count            int not null default 0,
    add column failed_at             timestamptz,
    add column password_set_at       timestamptz,               -- null: when the account was made
    add column must_change_password  boolean not null default false,   -- somebody else chose it
    add column old_password_hashes   text[] not null default '{}';     -- the newest first

update staff set failed_count = 0, locked_until = null;

-- One address (IPv6: its /64) at which one username was tried. No reference: names that nobody has are counted
-- as well, in a few rows that all of them share, so that a sign-in does the same for them.
create table sign_in_address (
    staff_id      uuid not null,
    address       text not null,
    failed_count  int not null default 0,
    lock_count    int not null default 0,
    locked_until  timestamptz,
    failed_at     timestamptz,
    succeeded_at  timestamptz,                 -- the last time that they did sign in from here
    primary key (staff_id, address)
);


-- A secret is sealed (engine/vault); `sealed` is in force, `pending` waits for a code that confirms it.
create table second_factor (
    staff_id      uuid primary key references staff (id),
    data_key      bytea not null,              -- wrapped by the vault's master key
    sealed        bytea,
    confirmed_at  timestamptz,
    last_step     bigint not null default 0,   -- of 30 s since 1970; no code of it or of an earlier one counts
    pending       bytea,
    pending_at    timestamptz,
    failed_count  int not null default 0,
    lock_count    int not null default 0,
    locked_until  timestamptz,
    failed_at     timestamptz,
    check ((sealed is null) = (confirmed_at is null)),
    check ((pending is null) = (pending_at is null))
);

create table recovery_code (
    staff_id  uuid not null references second_factor (staff_id) on delete cascade,
    hash      bytea not null,                  -- SHA-256 of 120 random bits and of whose they are
    used_at   timestamptz,
    primary key (staff_id, hash)
);

-- What the right password opens where something is missing yet: one step, for minutes, once.
create table sign_in_step (
    token_hash  bytea primary key,             -- SHA-256 of 256 random bits
    staff_id    uuid not null references staff (id),
    step        text not null check (step in ('second_factor', 'password')),
    made_at     timestamptz not null,
    ends_at     timestamptz not null
);
create index sign_in_step_of_staff on sign_in_step (staff_id);
