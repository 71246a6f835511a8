-- Names, identity numbers, telephones and clinical words are sealed (docs/VAULT.md). What was written plainly
-- before waits in plain_… columns until `xinglin serve` has sealed it; where there is nothing they are gone at once.

-- Master keys, each wrapped by the key outside the database.
create table vault_key (
    purpose      text        not null check (purpose in ('data', 'index')),
    version      int         not null check (version > 0),
    wrapped      bytea       not null,
    kek          bytea       not null,           -- id of the key outside that wraps it
    profile      smallint    not null,           -- engine/vault/sealing.py Profile: of what it wraps
    made_at      timestamptz not null default now(),
    active_from  timestamptz not null,           -- announced until then: every gateway has to know it first
    primary key (purpose, version)
);

-- Data keys of a person, wrapped by a master key. Null: erased (patient), or not needed yet.
alter table patient
    add column record_key  bytea,   -- name, identity number, medical words
    add column contact_key bytea;   -- telephones, appeals, what was said on the telephone
alter table account
    add column contact_key bytea;

alter table patient drop constraint patient_id_type_id_number_key;
alter table patient rename column name to plain_name;
alter table patient rename column id_number to plain_id_number;
alter table patient
    alter column plain_name drop not null,
    alter column plain_id_number drop not null,
    add column name      bytea,
    add column id_number bytea,
    add column id_index  bytea unique;   -- keyed hash of kind and number: one identity, one patient

alter table account_patient rename column phone to plain_phone;
alter table account_patient alter column plain_phone drop not null, add column phone bytea;

do $$
declare found text;
begin
    for found in select conname from pg_constraint
                  where conrelid = 'vitals'::regclass and pg_get_constraintdef(oid) like '%note <>%'
    loop execute format('alter table vitals drop constraint %I', found);
    end loop;
end $$;
alter table vitals rename column note to plain_note;
alter table vitals
    alter column plain_note drop not null,
    add column note bytea,   -- null: nothing was noted
    add constraint vitals_say_something check (
        num_nonnulls(systolic, diastolic, pulse, temperature, spo2, height_cm, weight_kg, note) > 0) not valid;

alter table penalty rename column appeal_text to plain_appeal_text;
alter table penalty rename column decision_reason to plain_decision_reason;
alter table penalty add column appeal_text bytea, add column decision_reason bytea;
alter table amnesty drop column reason;   -- its penalty has it

alter table no_show_call rename column note to plain_note;
alter table no_show_call alter column plain_note drop not null, add column note bytea;

do $$
begin
    if not exists (select from patient) and not exists (select from penalty)
       and not exists (select from amnesty) and not exists (select from account where openid like 'desk:%') then
        alter table patient drop column plain_name, drop column plain_id_number;
        alter table account_patient drop column plain_phone;
        alter table vitals drop column plain_note;
        alter table vitals validate constraint vitals_say_something;
        alter table penalty drop column plain_appeal_text, drop column plain_decision_reason;
        alter table no_show_call drop column plain_note;
    end if;
end $$;
