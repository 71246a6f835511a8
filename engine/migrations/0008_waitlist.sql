-- 候补: where a wish stands, and what became of it. The table itself came with 0007.

alter table wish
    add column passed_over text[] not null default '{}',   -- schedules that refused it for good
    add column refusal     jsonb;                          -- what its maker was told: it never waited

-- Who waits where: places of one day are asked for with every look at a wish.
create index wish_places on wish using gin (schedules) where status in ('waiting', 'offered');
-- What a wish was offered. Ordinary numbers are not in this index, so they do not pay for it.
create index appointment_of_wish on appointment (wish_id) where wish_id is not null;
