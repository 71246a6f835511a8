-- The hospital's rules (policy.yaml) as they were put in force, one row a time. The last one is in force.

create table policy (
    version  bigint      generated always as identity primary key,
    yaml     text        not null,
    who      text        not null,   -- who put it in force, as they are called
    at       timestamptz not null default now()
);
