-- What is measured at the triage desk. A second measurement is a second row; nothing is overwritten.

create table vitals (
    id            uuid          primary key,   -- derived from who measured and the Idempotency-Key
    ticket_id     uuid          not null references ticket (id),
    systolic      smallint      check (systolic between 30 and 300),            -- mmHg
    diastolic     smallint      check (diastolic between 10 and 200),           -- mmHg
    pulse         smallint      check (pulse between 0 and 300),                -- beats a minute
    temperature   numeric(3, 1) check (temperature between 25 and 45),          -- °C
    spo2          smallint      check (spo2 between 30 and 100),                -- per cent
    height_cm     numeric(4, 1) check (height_cm between 20 and 260),
    weight_kg     numeric(4, 1) check (weight_kg between 0.3 and 600),
    note          text          not null,
    by            uuid          not null references staff (id),
    at            timestamptz   not null,
    check (systolic > diastolic),
    check (num_nonnulls(systolic, diastolic, pulse, temperature, spo2, height_cm, weight_kg) > 0 or note <> '')
);
create index vitals_of_ticket on vitals (ticket_id, at desc);
