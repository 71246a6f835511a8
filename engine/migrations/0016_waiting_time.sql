-- Waiting times: what the nights have learned, what past forecasts were worth, and what patients were told.

-- One row a day that had patients; the latest ones are kept. Learned in the order of the days, each once.
create table service_time_model (
    day         date        primary key,     -- the last one that it knows
    learned_at  timestamptz not null,
    visits      int         not null,        -- turns that were over on that day
    told        int         not null,        -- forecasts of that day whose outcome is known
    data        jsonb       not null         -- engine/domain/service_times.py Tally, of all days until then
);

-- What forecasts of all days until then were worth, faded by age: engine/domain/calibration.py Calibration.
create table waiting_time_calibration (
    day            date  not null references service_time_model (day) on delete cascade,
    department_id  text  not null,
    data           jsonb not null,
    primary key (day, department_id)
);

-- How good a day's forecasts were: sums over them, in seconds. Kept for good.
create table waiting_time_report (
    day             date     not null,
    department_id   text     not null,
    distance        smallint not null,       -- turns ahead, at each room that might have called
    n               int      not null,
    below_p10       int      not null,
    below_p50       int      not null,
    below_p90       int      not null,
    error           float8   not null,       -- of P50: how much too long
    absolute_error  float8   not null,
    pinball_p50     float8   not null,
    pinball_p90     float8   not null,
    primary key (day, department_id, distance)
);

-- What a patient was told without asking: each once, for ever.
create table notice (
    id             bigint      generated always as identity primary key,
    subject        uuid        not null,     -- a ticket or an appointment
    kind           text        not null check (kind in ('ahead', 'leave_home', 'late')),
    step           text        not null,     -- ahead: stage/people; late: minutes; else ''
    patient_id     uuid        not null,
    department_id  text        not null,
    day            date        not null,     -- of the visit
    at             timestamptz not null,
    data           jsonb       not null,     -- what its words name
    unique (subject, kind, step)
);
create index notice_of_patient on notice (patient_id, at desc);
create index notice_of_day on notice (day, department_id);

-- How long a patient says that the way to the hospital takes.
create table way (
    appointment_id  uuid        primary key references appointment (id),
    minutes         smallint    not null check (minutes between 0 and 1440),
    told_at         timestamptz not null
);
