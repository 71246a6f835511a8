-- The hospital's own HIS: what it is believed to have, whose numbers count where, and what differs.

-- One row for each number that the HIS was, or is about to be, told of, or has told us of. It is written
-- before anything is sent, so that a process that dies in between leaves a question, never a surprise.
create table his_registration (
    appointment_id uuid        primary key,            -- no foreign key: theirs is written before ours is held
    phase          text        not null
                   check (phase in ('due', 'asking', 'locked', 'booked', 'arrived', 'fulfilled', 'no_show',
                                    'gone')),
    origin         text        not null default 'ours' check (origin in ('ours', 'theirs')),
    department_id  text        not null,               -- ours
    his_id         text,                               -- what they call it
    slot_id        text,                               -- as it was last told; of theirs, where it was put
    starts_at      timestamptz,
    number         int,                                -- theirs, where their numbers count, else as told
    updated_at     timestamptz not null default now()
);
create index his_registration_of_theirs on his_registration (his_id) where his_id is not null;
create index his_registration_of_day on his_registration (starts_at);

-- Departments of which the HIS owns the numbers; all others are ours.
create table his_truth (
    department_id text        primary key,
    since         timestamptz not null default now()
);

-- Their code for ours. Whatever is not here is called alike on both sides.
create table his_code (
    kind   text not null check (kind in ('department', 'practitioner')),
    theirs text not null check (theirs <> ''),
    ours   text not null check (ours <> ''),
    primary key (kind, theirs),
    unique (kind, ours)
);

-- What both sides say differently, and nobody could heal by rule.
create table his_difference (
    id         bigint      generated always as identity primary key,
    day        date        not null,                   -- of the visit
    kind       text        not null,                   -- engine/domain/his_rules.py Differs
    subject    text        not null,                   -- our number's id in hex, or `his:` and theirs
    state      text        not null check (state in ('open', 'healed', 'settled')),
    evidence   jsonb       not null,                   -- codes, times, numbers, states: nobody's name
    found_at   timestamptz not null,
    last_at    timestamptz not null,
    times      int         not null default 1,
    ended_at   timestamptz,
    ended_by   text,
    ended_why  text
);
create unique index his_difference_open on his_difference (day, kind, subject) where state = 'open';
create index his_difference_of_day on his_difference (day desc, id desc);

create table his_run (
    id       bigint      generated always as identity primary key,
    day      date        not null,
    began_at timestamptz not null,
    ended_at timestamptz not null,
    ours     int         not null,
    theirs   int         not null,
    matched  int         not null,
    healed   int         not null,
    left_open int        not null
);
create index his_run_of_day on his_run (day, id desc);

-- Days that somebody wants compared now.
create table his_asked (
    day      date        primary key,
    asked_by text        not null,                     -- staff, or '' for the night and the command line
    asked_at timestamptz not null default now(),
    due_at   timestamptz not null default now(),
    trouble  text
);
