-- Who will not come: what each night has learned, who was rung, and who looked at telephone numbers.

-- One row a night; the latest ones are kept. `data` is null where too little is known: `why` says so.
create table no_show_model (
    id               bigint      generated always as identity primary key,
    learned_at       timestamptz not null,
    first_day        date,                          -- of the visits that it has learned from
    until            date        not null,          -- and the day after the last one
    rows             int         not null,          -- visits whose outcome is known
    missed           int         not null,
    why              text        check (why in ('too_few', 'not_judged', 'no_better')),
    judged           jsonb,                         -- on the latest week, which that judgement's model had not seen
    absences_differ  float8      not null,          -- variance of log-odds that people of one session share
    rates            jsonb       not null,          -- shares by department, practitioner, weekday and hour
    data             jsonb,                         -- engine/domain/no_show.py Model
    check ((data is null) = (why is not null))
);

-- The desk has rung somebody about a number.
create table no_show_call (
    id              bigint      generated always as identity primary key,
    appointment_id  uuid        not null references appointment (id),
    outcome         text        not null check (outcome in ('will_come', 'will_not_come', 'not_reached')),
    note            text        not null,
    by              uuid        not null references staff (id),
    at              timestamptz not null
);
create index no_show_call_of on no_show_call (appointment_id, at);

-- Who saw a page of a calling list, and whether it showed telephone numbers in full.
create table calling_list_look (
    id             bigint      generated always as identity primary key,
    staff_id       uuid        not null references staff (id),
    at             timestamptz not null,
    department_id  text        not null,
    day            date        not null,
    patient_ids    uuid[]      not null,
    in_full        boolean     not null
);
create index calling_list_look_by_time on calling_list_look (at);
