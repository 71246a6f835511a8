-- What people may do for others and for how long; what they did too often, and what became of it.

-- The right to book for somebody (engine/domain/delegation.py).
alter table account_patient
    add column expires_at  timestamptz,   -- null: for good
    add column granted_by  uuid,          -- the account that gave the right; null: before rights were dated
    add column revoked_at  timestamptz;   -- taken back before it ended

-- Who could book yesterday can book today, and will be asked in a year. A child's eighteenth birthday counts
-- from midnight in the hospital's zone; who is born on 29 February has it on 1 March.
update account_patient ap
   set expires_at = case
           when ap.relation = 'child' and p.birth_date is not null
                and p.birth_date - 1 + interval '18 years 1 day' > now()
           then (p.birth_date - 1 + interval '18 years 1 day')
                at time zone coalesce((select timezone from hospital), 'Asia/Shanghai')
           else now() + interval '365 days' end
  from patient p
 where p.id = ap.patient_id and ap.relation <> 'self';

-- A block that conduct earned (engine/domain/conduct.py). Its id is derived from subject, rule and evidence.
create table penalty (
    id              uuid        primary key,
    subject_kind    text        not null check (subject_kind in ('patient', 'account')),
    subject         uuid        not null,
    rule            text        not null,          -- as policy.yaml calls it
    offence         text        not null,          -- engine/domain/policy.py Offence
    begins          timestamptz not null,
    ends            timestamptz not null check (ends > begins),
    evidence        uuid[]      not null check (cardinality(evidence) > 0),   -- appointments, oldest first
    created_at      timestamptz not null,
    -- One appeal: who asked, when and why; then who decided, when and why.
    appeal          text        not null default 'none' check (appeal in ('none', 'open', 'upheld', 'lifted')),
    appealed_by     uuid,                          -- account
    appealed_at     timestamptz,
    appeal_text     text,
    decided_by      text,                          -- the staff member's user name
    decided_at      timestamptz,
    decision_reason text,
    lifted_at       timestamptz,                   -- from here on it blocks nobody
    check ((appeal = 'none') = (appealed_at is null)),
    check ((appeal in ('upheld', 'lifted')) <= (decided_at is not null))
);
-- Also the look-up of every booking: does a block stand for this patient or this account?
create index penalty_of_subject on penalty (subject, ends);
create index penalty_appealed on penalty (appealed_at) where appeal = 'open';

-- Appointments that never count again: their penalty was lifted on appeal.
create table amnesty (
    appointment_id  uuid        primary key,
    penalty_id      uuid        not null references penalty (id),
    granted_by      text        not null,
    reason          text        not null,
    at              timestamptz not null
);

-- Conduct has been looked at up to here. Rules look back when somebody offends after this, not before.
create table conduct_review (id int primary key default 1 check (id = 1), until timestamptz not null);
insert into conduct_review (until) values (now());

-- Idempotency-Keys of writes that no actor keeps, so that a retry is known (engine/records/request_keys.py).
create table request_key (
    owner        uuid        not null,    -- the account or the staff member
    key          text        not null,
    fingerprint  bytea       not null,    -- of what was asked
    at           timestamptz not null,
    primary key (owner, key)
);
create index request_key_by_age on request_key (at);

-- All numbers of a patient, by time: one day's, those ahead, and what conduct rules count.
drop index appointment_of_patient;
create index appointment_of_patient on appointment (patient_id, starts_at);
create index appointment_given_up on appointment (updated_at) where status >= 5;
