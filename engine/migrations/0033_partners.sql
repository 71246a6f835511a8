-- Systems of others that call us: who they are, what they may, and whom they have brought (docs/PARTNERS.md).

create table partner (
    id           uuid        primary key,          -- the client id
    name         text        not null unique check (name ~ '^[a-z0-9][a-z0-9-]{1,39}$'),
    scopes       text[]      not null check (cardinality(scopes) > 0),
    channel      smallint    not null,             -- whose share of the numbers theirs count for
    made_at      timestamptz not null,
    expires_at   timestamptz,                      -- null: until it is disabled
    disabled_at  timestamptz
);

-- Secrets are 256 bits of chance, so their plain hash gives nobody anything to try. Two are good at a time
-- while one is exchanged for the next.
create table partner_secret (
    hash        bytea       primary key check (length(hash) = 32),
    partner_id  uuid        not null references partner on delete cascade,
    made_at     timestamptz not null,
    expires_at  timestamptz                        -- null: until the next one comes
);
create index partner_secret_of on partner_secret (partner_id);

-- Whom a partner may see and book for: people it has brought, or named by their document.
create table partner_patient (
    partner_id  uuid        not null references partner on delete cascade,
    patient_id  uuid        not null references patient on delete cascade,
    since       timestamptz not null,
    primary key (partner_id, patient_id)
);
create index partner_patient_of on partner_patient (patient_id);

-- Numbers a partner has taken. What comes in their place (a change, an offer after 停诊) is found from them.
create table partner_appointment (
    partner_id      uuid        not null references partner on delete cascade,
    appointment_id  uuid        not null,
    made_at         timestamptz not null,
    primary key (partner_id, appointment_id)
);
create index partner_appointment_of on partner_appointment (appointment_id);

-- They stand in the audit like everybody else.
alter table audit_entry drop constraint audit_entry_by_kind_check;
alter table audit_entry add constraint audit_entry_by_kind_check
    check (by_kind in ('staff', 'account', 'operator', 'system', 'nobody', 'partner'));
