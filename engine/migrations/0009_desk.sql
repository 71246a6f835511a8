-- Schedule work that waits for somebody's consent, and who changed a practitioner's week.

-- Asked for by somebody who lacks the role that the policy wants. Rows stay: they are the audit.
create table change_request (
    id               uuid        primary key,      -- of the command: derived from who asked and the Idempotency-Key
    command          text        not null,         -- engine/domain/policy.py APPROVABLE
    role             text        not null,         -- who must agree
    target           text        not null,         -- a schedule, or a practitioner whose week it is
    practitioner_id  text        not null,
    department_ids   text[]      not null,         -- whose staff may decide
    body             jsonb       not null,         -- what was asked, as it was sent
    revision         text        not null,         -- that was looked at
    note             text        not null,
    asked_by         uuid        not null references staff (id),
    asked_at         timestamptz not null,
    -- executing: agreed to, and on its way. Who decides then can only repeat the consent.
    status           text        not null default 'pending'
                     check (status in ('pending', 'executing', 'approved', 'rejected')),
    decided_by       uuid        references staff (id),
    decided_at       timestamptz,
    reason           text,
    check ((status = 'pending') or (decided_by is not null and decided_at is not null))
);
create index change_request_waiting on change_request (asked_at) where status in ('pending', 'executing');
create index change_request_of_target on change_request (target, asked_at);

-- Every change of templates and overrides that was not an import.
create table week_change (
    id               bigint      generated always as identity primary key,
    practitioner_id  text        not null,
    kind             text        not null check (kind in ('templates', 'override')),
    day              date,                         -- of an override
    period           text,
    before           jsonb       not null,
    after            jsonb       not null,
    note             text        not null,
    by               uuid        not null references staff (id),
    at               timestamptz not null
);
create index week_change_of on week_change (practitioner_id, id desc);
