-- The waiting room: what its actors write beside their events.

create table ticket (
    id               uuid        primary key,        -- derived from the appointment, or from a walk-in's command
    department_id    text        not null,
    day              date        not null,
    patient_id       uuid        not null,
    appointment_id   uuid        unique,             -- null: a walk-in
    prefix           text        not null,
    number           int         not null,
    status           smallint    not null,           -- engine/domain/waiting_room.py Status
    queue_id         text        not null,           -- '' where the journey is over
    practitioner_id  text        not null,           -- who alone may call it; '': whoever serves the queue
    room_id          text        not null,           -- called to, seen in or at the door of; '': none
    stage            smallint    not null,           -- of `stages`, from 1
    stages           smallint    not null,
    visit            smallint    not null,
    priority         text        not null,
    emergency        smallint    not null,
    starts_at        timestamptz,                    -- the appointed time
    arrived_at       timestamptz not null,
    first_called_at  timestamptz,                    -- to the first stage in which somebody saw the patient
    started_at       timestamptz,                    -- of that stage
    finished_at      timestamptz,                    -- of the last stage that is over
    -- Stages that are over: kind, queue, room, practitioner, called, started, finished (ms; 0: not known).
    done             jsonb       not null,
    version          int         not null,
    unique (department_id, day, prefix, number)
);
create unique index ticket_waits_once on ticket (department_id, day, patient_id) where status < 8;
create index ticket_of_patient on ticket (patient_id, arrived_at desc);
create index ticket_by_day on ticket (day, department_id);

alter function flush_more(jsonb) rename to flush_of_schedules;

create function flush_of_rooms(tickets jsonb) returns void language sql as $$
    -- Who is through comes first: only then may the same patient wait again.
    insert into ticket (id, department_id, day, patient_id, appointment_id, prefix, number, status, queue_id,
                        practitioner_id, room_id, stage, stages, visit, priority, emergency, starts_at,
                        arrived_at, first_called_at, started_at, finished_at, done, version)
    select t.key::uuid, v ->> 0, (v ->> 1)::date, (v ->> 2)::uuid, (v ->> 3)::uuid, v ->> 4, (v ->> 5)::int,
           (v ->> 6)::smallint, v ->> 7, v ->> 8, v ->> 9, (v ->> 10)::smallint, (v ->> 11)::smallint,
           (v ->> 12)::smallint, v ->> 13, (v ->> 14)::smallint,
           to_timestamp((v ->> 15)::bigint / 1000.0), to_timestamp((v ->> 16)::bigint / 1000.0),
           to_timestamp((v ->> 17)::bigint / 1000.0), to_timestamp((v ->> 18)::bigint / 1000.0),
           to_timestamp((v ->> 19)::bigint / 1000.0), v -> 20, (v ->> 21)::int
      from jsonb_each(tickets) t (key, v)
     order by (v ->> 6)::smallint desc
    on conflict (id) do update
       set status = excluded.status, queue_id = excluded.queue_id,
           practitioner_id = excluded.practitioner_id, room_id = excluded.room_id, stage = excluded.stage,
           stages = excluded.stages, priority = excluded.priority, emergency = excluded.emergency,
           first_called_at = excluded.first_called_at, started_at = excluded.started_at,
           finished_at = excluded.finished_at, done = excluded.done, version = excluded.version
$$;

create function flush_more(more jsonb) returns void language plpgsql as $$
begin
    perform flush_of_schedules(more);
    if more -> 'tickets' <> '{}' then
        perform flush_of_rooms(more -> 'tickets');
    end if;
end
$$;

-- Who works in a waiting room beside doctors and desks: nurses, and devices that sign in as somebody.
alter table staff drop constraint staff_roles_check, drop constraint staff_channel_check,
    add constraint staff_roles_check check (
        cardinality(roles) > 0
        and roles <@ array['doctor', 'nurse', 'desk', 'schedule_office', 'manager', 'partner', 'kiosk', 'screen']
    ),
    add constraint staff_channel_check check (
        channel in ('window', 'phone', 'referral', 'management', 'doctor', 'his', 'kiosk')
    );
