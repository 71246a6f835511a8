-- What a hospital is: loaded by `xinglin import`, read by gateways and actors.

create table hospital (
    id        int  primary key default 1 check (id = 1),
    name      text not null,
    name_en   text not null default '',
    timezone  text not null
);

create table department (
    id          text primary key,
    parent_id   text references department (id),     -- two levels: a first-level department has none
    name        text not null,
    name_en     text not null default '',
    campus      text not null,
    location    text not null default '',
    intro       text not null default '',
    sex         text check (sex in ('male', 'female')),   -- whom it sees; null: everybody
    age_min     int,                                       -- full years, inclusive
    age_max     int,
    position    int  not null
);

create table practitioner (
    id             text primary key,
    name           text not null,
    title          text not null,      -- chief | associate_chief | attending | resident
    department_id  text not null references department (id),
    specialty      text not null default '',
    intro          text not null default '',
    position       int  not null
);

create table room (
    id             text primary key,
    name           text not null,
    department_id  text not null references department (id)
);

create table number_class (
    id       text primary key,         -- ordinary | expert | special | emergency
    name     text not null,
    fee_fen  int  not null check (fee_fen >= 0)
);

-- A week's habit. One row a session; 30-minute slots of `capacity` seats between starts and ends.
create table session_template (
    practitioner_id  text     not null references practitioner (id),
    weekday          smallint not null check (weekday between 1 and 7),   -- ISO, Monday is 1
    period           text     not null check (period in ('morning', 'afternoon', 'night')),
    starts           time     not null,
    ends             time     not null,
    capacity         smallint not null check (capacity between 1 and 9999),
    number_class_id  text     not null references number_class (id),
    department_id    text     not null references department (id),
    room_id          text     references room (id),
    fee_fen          int      check (fee_fen >= 0),                       -- null: the class's fee
    primary key (practitioner_id, weekday, period)
);

-- A date that is not as the week has it: closed, or another capacity or time.
create table session_override (
    practitioner_id  text     not null references practitioner (id),
    day              date     not null,
    period           text     not null check (period in ('morning', 'afternoon', 'night')),
    closed           boolean  not null default false,
    starts           time,
    ends             time,
    capacity         smallint check (capacity between 1 and 9999),
    primary key (practitioner_id, day, period)
);

create table holiday (
    day      date primary key,
    name     text not null,
    works_as smallint check (works_as between 1 and 7)   -- 调休: a day worked as this weekday; null: closed
);

-- One practitioner's day as published. `plan` is what the actor opens with; once opened the actor is the truth.
create table schedule (
    id               text primary key,               -- <practitioner>-<yyyymmdd>
    practitioner_id  text    not null references practitioner (id),
    day              date    not null,
    plan             jsonb   not null,
    opened           boolean not null default false,
    unique (practitioner_id, day)
);
create index schedule_by_day on schedule (day);

create table catalog_version (id int primary key default 1 check (id = 1), version bigint not null);
insert into catalog_version (version) values (1);
