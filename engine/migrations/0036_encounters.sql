-- What picture archives (docs/IMAGING.md) and record systems (docs/EMR.md) tell of our patients.

create table imaging_study (
    id           uuid        primary key,             -- derived from its UID
    study_uid    text        not null unique,         -- theirs; names nobody
    patient_id   uuid        not null references patient (id),
    day          date,
    started_at   timestamptz,                         -- null: the archive knows the day alone
    modalities   text[]      not null,                -- CT, MR, DX …
    series       int         not null,
    instances    int         not null,
    facts        bytea       not null,                -- what else is said of it: sealed with the record's key
    noted_at     timestamptz not null                 -- when we last heard of it
);
create index imaging_study_of_patient on imaging_study (patient_id, day desc nulls last, id);

-- How far a system that we ask was read: an archive's changes, a record system's last update.
create table feed_position (
    feed      text        primary key,
    position  text        not null,
    at        timestamptz not null
);

-- An encounter, a diagnosis, a medication, an allergy, in its newest version.
create table clinical_entry (
    id               uuid        primary key,         -- derived from the system, the kind and their id, keyed
    system           text        not null,            -- whose record it is
    kind             text        not null check (kind in ('encounter', 'condition', 'medication', 'allergy')),
    patient_id       uuid        not null references patient (id),
    encounter_id     uuid,                            -- which entry it was written in; may come later, or never
    appointment_id   uuid,                            -- our number that it is about, where they say so
    version          text        not null,            -- theirs
    updated_at       timestamptz not null,            -- when they changed it, by their clock: orders versions
    begins_at        timestamptz,
    is_in_error      boolean     not null,            -- they took it back: shown to nobody
    content          bytea       not null,            -- sealed with the patient's record key
    taken_at         timestamptz not null
);
create index clinical_entry_of_patient on clinical_entry (patient_id, kind, begins_at desc nulls last, id);
create index clinical_entry_of_encounter on clinical_entry (encounter_id) where encounter_id is not null;
