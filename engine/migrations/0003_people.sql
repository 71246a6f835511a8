-- Who books: accounts (logins) and patients (people). One identity is one patient, across accounts.

create table account (
    id          uuid primary key,
    openid      text not null unique,
    created_at  timestamptz not null
);

create table patient (
    id             uuid primary key,
    id_type        text not null,
    id_number      text not null,
    name           text not null,
    birth_date     date,
    sex            text check (sex in ('male', 'female')),
    blocked_until  timestamptz,
    created_at     timestamptz not null,
    unique (id_type, id_number)
);

create table account_patient (
    account_id  uuid not null references account (id),
    patient_id  uuid not null references patient (id),
    relation    text not null,
    phone       text not null,
    created_at  timestamptz not null,
    primary key (account_id, patient_id)
);
