-- Accounts' phones, verified real names, and what one person may do for another.

-- The phone that WeChat says belongs to the account: sealed with account.contact_key. One phone may be bound to
-- several accounts; the blind index says to how many.
alter table account
    add column unionid         text,
    add column phone           bytea,
    add column phone_index     bytea,
    add column phone_bound_at  timestamptz,
    add constraint account_phone check ((phone is null) = (phone_index is null));
create index account_of_phone on account (phone_index) where phone_index is not null;

-- Whether the real name was found in the register (by 'register'), or the papers seen at a desk (by the
-- clerk's user name). `verify_at`: the register is asked then, by a round; null: it is not asked by itself.
alter table patient
    add column verification  text        not null default 'unverified'
                                         check (verification in ('unverified', 'verified', 'refused')),
    add column verified_at   timestamptz,
    add column verified_by   text,
    add column verify_at     timestamptz,
    add column verify_tries  int         not null default 0,
    add constraint patient_verified check ((verification = 'verified') <= (verified_at is not null));
create index patient_to_verify on patient (verify_at) where verify_at is not null;
-- Who is there already is asked about in time; where there is no register, never.
update patient set verify_at = now() where id_type = 'resident_id';

-- Each time an account asks whether a name and a number belong together. Those that did not match count for a
-- day, so that nobody can try people out; one under way counts for a minute.
create table identity_guess (
    id          uuid        primary key,
    account_id  uuid        not null,
    at          timestamptz not null,
    missed      boolean     not null default false
);
create index identity_guess_of_account on identity_guess (account_id, at);

-- What an account may do for a patient, and on whose word (engine/domain/delegation.py).
alter table account_patient
    add column id               uuid        not null default gen_random_uuid(),
    add column may_book         boolean     not null default true,
    add column may_see          boolean     not null default true,
    add column may_pay          boolean     not null default true,
    add column consent          text        not null default 'attested'
                                            check (consent in ('own', 'approved', 'attested', 'guardian', 'desk')),
    add column consent_version  int         not null default 0,   -- of the text; 0: before there was one
    add column consent_at       timestamptz,
    add column revoked_by       text        check (revoked_by in ('asker', 'person', 'desk'));
update account_patient set consent = 'own' where relation = 'self';
update account_patient set revoked_by = 'asker' where revoked_at is not null;
create unique index account_patient_id on account_patient (id);
-- Who may act for this patient, and who is the patient.
create index account_patient_of_patient on account_patient (patient_id);

-- Gateways hear of accounts that may see less from now on (channel `right`): what they watch is looked at again.
alter table account_patient add column changed_at timestamptz;
create function right_changed() returns trigger language plpgsql as $$
begin
    new.changed_at := clock_timestamp();
    perform pg_notify('right', replace(new.account_id::text, '-', ''));
    return new;
end
$$;
create trigger account_patient_changed before update on account_patient for each row
    when ((old.may_see, old.revoked_at, old.expires_at) is distinct from (new.may_see, new.revoked_at, new.expires_at))
    execute function right_changed();
create index account_patient_by_change on account_patient (changed_at) where changed_at is not null;

-- Somebody would like to act for a person who has an account of their own, and waits for their yes.
create table delegation_request (
    id          uuid        primary key,
    account_id  uuid        not null references account (id),   -- who asks
    patient_id  uuid        not null references patient (id),   -- for whom
    relation    text        not null,
    phone       bytea,                                          -- theirs for this patient, sealed with its contact_key
    status      text        not null check (status in ('asked', 'approved', 'rejected', 'withdrawn')),
    asked_at    timestamptz not null,
    ends_at     timestamptz not null,                           -- without an answer it is over then
    decided_at  timestamptz,
    decided_by  text,                                           -- the account's id, or the clerk's user name
    check ((status = 'asked') = (decided_at is null))
);
create unique index delegation_request_open on delegation_request (account_id, patient_id) where status = 'asked';
create index delegation_request_of_patient on delegation_request (patient_id) where status = 'asked';
