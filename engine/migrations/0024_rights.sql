-- Who may do what: more roles, three separated administrators, campuses, and readings behind broken glass.
-- Which operation is whose stands in web/rights/matrix.yaml.

alter table staff drop constraint staff_roles_check;
alter table staff
    add column campus  text,      -- where they work; null: on every campus
    add column made_by uuid,      -- who gives them roles is somebody else; null: made at the machine
    -- An account that was just made has no role: somebody else gives it one.
    add constraint staff_roles_check check (
        roles <@ array['doctor', 'nurse', 'desk', 'schedule_office', 'manager', 'partner', 'kiosk', 'screen',
                       'cashier', 'pharmacist', 'department_head',
                       'system_admin', 'security_admin', 'audit_admin']
    ),
    -- 三员分立: an administrator of one kind is nothing else.
    add constraint staff_administrators_apart check (
        not roles && array['system_admin', 'security_admin', 'audit_admin'] or cardinality(roles) = 1
    ),
    add constraint staff_head_of_something check (
        not roles && array['department_head'] or department_id is not null
    );

-- Somebody read a record without treating its patient, said why, and somebody else looks at that afterwards.
create table break_glass (
    id            uuid        primary key,   -- derived from who asked and the Idempotency-Key
    staff_id      uuid        not null references staff (id),
    patient_id    uuid        not null references patient (id),
    kind          text        not null check (
        kind in ('emergency', 'consultation', 'handover', 'complaint', 'other')
    ),
    reason        bytea       not null,      -- sealed with the patient's record key, as the note below
    at            timestamptz not null,
    expires_at    timestamptz not null check (expires_at > at),
    reviewed_by   uuid        references staff (id) check (reviewed_by <> staff_id),   -- never by oneself
    reviewed_at   timestamptz,
    verdict       text        check (verdict in ('justified', 'unjustified')),
    review_note   bytea,
    check ((reviewed_by is null) = (reviewed_at is null) and (reviewed_by is null) = (verdict is null))
);
create index break_glass_in_force on break_glass (staff_id, patient_id, expires_at);
create index break_glass_by_time on break_glass (at desc);
create index break_glass_unreviewed on break_glass (at) where reviewed_by is null;

-- Every gateway's alarm rings (web/admin/alerts.py).
create function tell_of_break_glass() returns trigger language plpgsql as $$
begin
    notify break_glass;
    return null;
end
$$;
create trigger told after insert or update on break_glass
    for each statement execute function tell_of_break_glass();
