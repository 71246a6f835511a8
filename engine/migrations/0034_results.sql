-- Checks on what other systems send (docs/INTAKE.md), and the reports of laboratories (docs/RESULTS.md).
-- Texts that come from outside are sealed; what they are found by is a keyed index.

-- The hospital's own rules for what comes in; the last row holds, over the defaults of web/intake/rules.yaml.
create table intake_rules (
    version  bigint      generated always as identity primary key,
    text     text        not null,
    who      text        not null,
    at       timestamptz not null default now()
);

-- Each message once: what became of it, and, as long as it waits, the message itself.
create table intake_message (
    id             uuid        primary key,
    interface      text        not null,
    message_index  bytea       not null,              -- of their id of it
    state          text        not null check (state in ('accepted', 'quarantined', 'unclaimed', 'dropped')),
    digest         bytea       not null,              -- of its content: the same id may not mean something else
    aggregate      bytea,                             -- what later ones of wait behind it; null: nothing
    first_at       timestamptz not null,
    last_at        timestamptz not null,
    times          int         not null default 1,    -- how often it came, or was tried
    reasons        jsonb       not null default '[]', -- field, rule, what was expected: never what stood there
    data_key       bytea,
    body           bytea,                             -- sealed: their id, what was read of it, and its bytes
    claim_keys     bytea[],                           -- unclaimed: by which the patient would be known
    retry_at       timestamptz,                       -- somebody asked, or the patient is here now
    settled_at     timestamptz,
    settled_by     text,
    settled_why    text,
    unique (interface, message_index),
    check ((body is null) = (data_key is null)),
    check (state not in ('quarantined', 'unclaimed') or body is not null),
    check (state <> 'unclaimed' or cardinality(claim_keys) > 0),
    check (state <> 'quarantined' or jsonb_array_length(reasons) > 0)
);
create index intake_message_waiting on intake_message (interface, first_at) where state = 'quarantined';
create index intake_message_of_aggregate on intake_message (interface, aggregate, first_at)
    where state = 'quarantined' and aggregate is not null;
create index intake_message_to_retry on intake_message (retry_at) where retry_at is not null;
create index intake_message_old on intake_message (last_at) where state in ('accepted', 'dropped');
create index intake_message_unclaimed_old on intake_message (first_at) where state = 'unclaimed';
create index intake_message_claims on intake_message using gin (claim_keys) where state = 'unclaimed';

-- What other systems call a patient of ours.
create table patient_number (
    system        text        not null,               -- whose number it is: 'his', 'lis' or their authority's name
    number_index  bytea       not null,
    patient_id    uuid        not null references patient (id),
    number        bytea       not null,               -- sealed with the record's key
    linked_at     timestamptz not null,
    linked_by     text        not null,               -- the interface that brought it, or who of the staff
    primary key (system, number_index)
);
create index patient_number_of_patient on patient_number (patient_id);

-- Whoever becomes known gets what waited for them. One statement a new patient, by an index; on nothing else.
create function claim_messages() returns trigger language plpgsql as $$
begin
    if tg_table_name = 'patient_number' then
        update intake_message set retry_at = now()
         where state = 'unclaimed' and claim_keys @> array[new.number_index];
    elsif new.id_index is not null then
        update intake_message set retry_at = now()
         where state = 'unclaimed' and claim_keys @> array[new.id_index];
    end if;
    return null;
end
$$;
create trigger claim_messages_of_patient after insert or update of id_index on patient
    for each row execute function claim_messages();
create trigger claim_messages_of_number after insert on patient_number
    for each row execute function claim_messages();

-- A laboratory's report, in its newest version. What it says lies sealed in its versions.
create table report (
    id            uuid        primary key,            -- derived from source and number, keyed
    source        text        not null,               -- whose report it is
    patient_id    uuid        not null references patient (id),
    newest        int         not null,
    status        text        not null check (status in ('preliminary', 'final', 'corrected', 'cancelled')),
    issued_at     timestamptz not null,               -- the newest version's, as everything above
    was_final     boolean     not null,               -- patients see nothing before
    created_at    timestamptz not null
);
create index report_of_patient on report (patient_id, issued_at desc, id);

create table report_version (
    report_id    uuid        not null references report (id),
    version      int         not null check (version > 0),  -- in the order in which they came
    status       text        not null check (status in ('preliminary', 'final', 'corrected', 'cancelled')),
    changed_at   timestamptz not null,                -- when they changed it, by their clock: orders versions
    received_at  timestamptz not null,
    is_late      boolean     not null,                -- a newer one was here before
    digest       bytea       not null,                -- of the content, keyed: the same twice is one version
    body         bytea       not null,                -- sealed with the patient's record key
    primary key (report_id, version)
);

create table report_attachment (
    report_id   uuid  not null,
    version     int   not null,
    n           int   not null check (n > 0),
    media_type  text  not null,
    bytes       int   not null,
    body        bytea not null,                       -- sealed likewise
    primary key (report_id, version, n),
    foreign key (report_id, version) references report_version (report_id, version)
);
