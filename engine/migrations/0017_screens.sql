-- Call screens as they were last heard of: each says every few seconds what it shows.

create table screen (
    id              text        not null,            -- as the screen calls itself
    topic           text        not null,            -- what it shows: calls/<department> or calls/<department>/<room>
    department_id   text        not null,
    account         text        not null,            -- username it signed in with
    gateway         text        not null,            -- that heard of it last
    seen_at         timestamptz not null,
    shown_sequence  bigint      not null,            -- of the last call that it has shown
    behind_ms       int         not null,            -- then: how long the oldest call was out that it had not shown
    error           text        not null,            -- in its own words; '': none
    primary key (id, topic)
);
