-- Who of the staff is who at the hospital's identity provider (docs/OIDC.md). By `sub`, which a provider never
-- gives to somebody else; names, usernames and addresses of mail change hands.
create table oidc_link (
    issuer     text not null,
    subject    text not null,
    staff_id   uuid not null references staff (id),
    linked_at  timestamptz not null,
    linked_by  text not null,                -- the operator's or the administrator's name
    primary key (issuer, subject),
    unique (issuer, staff_id)
);
create index oidc_link_of_staff on oidc_link (staff_id);
