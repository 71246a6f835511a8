-- Where a campus is, so that a gateway can tell how far from it a patient is who checks in.

create table campus (
    name       text   primary key,     -- department.campus names it
    latitude   float8 check (latitude between -90 and 90),        -- degrees of GCJ-02, as wx.getLocation tells them
    longitude  float8 check (longitude between -180 and 180),
    position   int    not null,
    check ((latitude is null) = (longitude is null))
);

-- A hospital that was imported before has its campuses by name; where they are comes with the next import.
insert into campus (name, position) select campus, min(position) from department group by campus;
