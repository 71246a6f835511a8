-- A hospital's indicators, folded from the journal behind the actors' backs (docs/INDICATORS.md). Nothing of
-- this is written by a flush.

-- How many numbers of a day, a department, a practitioner and a channel are what `name` says.
create table indicator (
    day              date     not null,   -- of the visit; of `taken` and `confirmed`, the day they were taken on
    department_id    text     not null,
    practitioner_id  text     not null,
    channel          smallint not null,   -- engine/domain/policy.py Channel
    name             text     not null,   -- engine/records/indicators.py
    value            int      not null,
    version          bigint   not null,   -- of indicator_state, when it last changed
    primary key (day, department_id, practitioner_id, channel, name)
);

-- Who counts locks this row. It says what the counts are of; anything else than that is counted anew.
create table indicator_state (
    id          int    primary key default 1 check (id = 1),
    definition  int    not null default 0,    -- engine/records/indicators.py DEFINITION; 0: never counted
    timezone    text   not null default '',   -- in which a day begins
    version     bigint not null default 0,
    counted     bigint not null default 0     -- the version at which everything was last counted anew
);
insert into indicator_state default values;

-- Up to where each shard's events are in the counts.
create table indicator_position (shard int primary key, seq bigint not null);
