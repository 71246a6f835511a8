-- The person's rights (PIPL): what they agreed to, what they want forgotten, what was put right.

-- A text that one can agree to. In force is, of each kind, the version that became valid last.
create table consent_version (
    kind        text        not null
                check (kind in ('privacy_policy', 'health_data', 'guardian', 'messages', 'research', 'cross_border')),
    version     text        not null check (version ~ '^[A-Za-z0-9._-]{1,32}$'),
    valid_from  timestamptz not null,
    renew       boolean     not null,             -- from then on, what was agreed to before does not count
    who         text        not null,             -- who published it
    at          timestamptz not null default now(),
    settled_at  timestamptz,                      -- when it took effect on what stands
    primary key (kind, version),
    unique (kind, valid_from)
);

create table consent_text (
    kind      text  not null,
    version   text  not null,
    language  text  not null check (language in ('zh', 'en')),
    title     text  not null check (title <> ''),
    text      text  not null check (text <> ''),
    sha256    bytea not null,                     -- of title, line feed, text, in UTF-8
    primary key (kind, version, language),
    foreign key (kind, version) references consent_version (kind, version)
);

-- What was said, one row each time. What stands is what was said last, of account, patient and kind.
create table consent (
    id           bigint      generated always as identity primary key,
    account_id   uuid        not null references account (id),
    patient_id   uuid        references patient (id),   -- null: for all whom the account acts for
    kind         text        not null,
    act          text        not null check (act in ('given', 'withdrawn')),
    version      text        not null,
    language     text        not null check (language in ('zh', 'en')),
    text_sha256  bytea       not null,
    at           timestamptz not null,
    how          text        not null check (how in ('app', 'desk', 'kiosk', 'law')),   -- law: ended with erasure
    by           uuid        references staff (id),     -- who wrote it down; null: the account itself
    foreign key (kind, version, language) references consent_text (kind, version, language)
);
create index consent_of_account on consent (account_id, id);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is only added to', tg_table_name using errcode = 'XL003';
end
$$;
create trigger consent_is_added_to before update or delete on consent
    for each row execute function refuse_change();
create trigger consent_is_not_emptied before truncate on consent
    for each statement execute function refuse_change();

-- What stands, as bits in the order of engine/domain/consents.py: the booking path reads one number.
alter table account add column consents smallint not null default 0;
alter table account_patient add column consents smallint not null default 0;

-- Whom the hospital registered itself agrees at the window, where staff ask in person: nothing is missing.
update account set consents = -1 where openid like 'desk:%';
create function consents_at_first() returns trigger language plpgsql as $$
begin
    if tg_table_name = 'account' then
        new.consents := case when new.openid like 'desk:%' then -1 else 0 end;
    else
        new.consents := coalesce((select consents from account where id = new.account_id), 0);
    end if;
    return new;
end
$$;
create trigger account_consents before insert on account for each row execute function consents_at_first();
create trigger account_patient_consents before insert on account_patient
    for each row execute function consents_at_first();
update account_patient ap set consents = a.consents from account a where a.id = ap.account_id and a.consents <> 0;

-- Accounts and, where it was for one alone, patients with the bits of what stands at that moment.
create function standing_consents(p_account uuid, p_now timestamptz)
    returns table (account_id uuid, patient_id uuid, bits smallint) language sql stable as $$
    select account_id, patient_id,
           bit_or(1 << array_position(
               array['privacy_policy', 'health_data', 'guardian', 'messages', 'research', 'cross_border'], kind
           ) - 1)::smallint
      from (select distinct on (c.account_id, c.patient_id, c.kind)
                   c.account_id, c.patient_id, c.kind, c.act, v.valid_from
              from consent c join consent_version v using (kind, version)
             where p_account is null or c.account_id = p_account
             order by c.account_id, c.patient_id, c.kind, c.id desc) said
     where act = 'given'
       and not exists (select from consent_version n
                        where n.kind = said.kind and n.renew and n.valid_from > said.valid_from
                          and n.valid_from <= p_now)
     group by account_id, patient_id
$$;

-- Writes them where they are read from. null: of all accounts, when a text takes effect.
create function settle_consents(p_account uuid, p_now timestamptz) returns void language sql as $$
    update account a set consents = w.bits
      from (select x.id, coalesce(s.bits, 0)::smallint as bits
              from account x
              left join standing_consents(p_account, p_now) s on s.account_id = x.id and s.patient_id is null
             where (p_account is null or x.id = p_account) and x.consents >= 0) w
     where a.id = w.id and a.consents <> w.bits;

    update account_patient ap set consents = w.bits
      from (select x.account_id, x.patient_id, (a.consents | coalesce(s.bits, 0))::smallint as bits
              from account_patient x
              join account a on a.id = x.account_id
              left join standing_consents(p_account, p_now) s
                on s.account_id = x.account_id and s.patient_id = x.patient_id
             where p_account is null or x.account_id = p_account) w
     where ap.account_id = w.account_id and ap.patient_id = w.patient_id and ap.consents <> w.bits;
$$;

-- Gateways keep names in memory for boards and screens: they hear (channel `name`) of one that is put right or
-- forgotten.
create function name_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('name', replace(new.id::text, '-', ''));
    return null;
end
$$;
create trigger patient_name_changed after update on patient for each row
    when (old.name is not null and old.name is distinct from new.name) execute function name_changed();

-- What a restricted person was called: out of the way of every page, until the law lets go of it. `name` and
-- `id_number` are the bytes that stood in patient, sealed for it with its record_key.
create table kept_identity (
    patient_id  uuid        primary key references patient (id),
    name        bytea,
    id_number   bytea,
    since       timestamptz not null,
    until       date        not null              -- the first day on which it goes, too
);
create index kept_identity_due on kept_identity (until);

-- What was asked for and what became of it. Holds no name.
create table erasure (
    id           uuid        primary key,
    account_id   uuid        not null references account (id),   -- who asked
    patient_id   uuid        references patient (id),            -- null: the account itself
    at           timestamptz not null,
    fates        jsonb       not null,            -- kind of data -> {fate, until}: engine/domain/retention.py
    kept_until   date,
    finished_at  timestamptz                      -- when the last of it was erased
);
create index erasure_of_account on erasure (account_id);
create index erasure_of_patient on erasure (patient_id);

alter table account add column erased_at timestamptz;

-- Who is registered anew is a patient like any other again.
create function patient_is_back() returns trigger language plpgsql as $$
begin
    update patient p set name = k.name, id_number = k.id_number
      from kept_identity k where p.id = new.patient_id and k.patient_id = p.id;
    if found then
        delete from kept_identity where patient_id = new.patient_id;
    end if;
    return new;
end
$$;
create trigger account_patient_is_back after insert or update of revoked_at on account_patient
    for each row when (new.revoked_at is null) execute function patient_is_back();

-- What was put right in somebody's data (PIPL 46), as it was before; sealed as in patient, with its record_key.
create table correction (
    id          uuid        primary key,          -- derived from who corrected and the Idempotency-Key
    patient_id  uuid        not null references patient (id),
    name        bytea,                            -- null: was not changed
    birth_date  date,
    sex         text,
    changed     text[]      not null check (cardinality(changed) > 0),
    document    text        not null,             -- kind of document that was looked at
    reason      bytea,                            -- sealed likewise
    by          uuid        not null references staff (id),
    at          timestamptz not null
);
create index correction_of_patient on correction (patient_id, at);

-- The texts that come with the program. A hospital publishes its own: xinglin consents publish.
insert into consent_version (kind, version, valid_from, renew, who, settled_at)
select kind, '2026.1', timestamptz '2026-01-01 00:00+08', false, 'xinglin', now()
  from unnest(array['privacy_policy', 'health_data', 'guardian', 'messages']) kind;

insert into consent_text (kind, version, language, title, text, sha256)
select kind, '2026.1', language, title, text, sha256(convert_to(title || chr(10) || text, 'UTF8'))
  from (values
    ('privacy_policy', 'zh', '个人信息处理规则',
     '本院为您办理预约、候诊与就诊，处理您的姓名、证件类型与号码、手机号、出生日期、性别、预约与就诊记录。'
     '这些信息只用于为您办理上述事项和履行法律规定的义务，保存在境内，姓名、证件号码和手机号加密存放。'
     '门诊病历自您最后一次就诊之日起保存不少于十五年，其余信息在您注销后即予删除。'
     '您可以随时查阅、复制、更正、导出和删除自己的信息，查看谁读过您的信息，撤回同意。撤回不影响撤回前的处理。'),
    ('privacy_policy', 'en', 'How personal data is processed',
     'To book, queue and see you, the hospital processes your name, the kind and number of your document, your'
     ' phone, birth date, sex, your bookings and visits. It does so for that alone and where the law obliges it;'
     ' the data stays in the country, and names, numbers and phones are stored encrypted. Outpatient records are'
     ' kept for no less than 15 years from your last visit; everything else is deleted when you leave. At any'
     ' time you may see, copy, correct, export and delete your data, see who has read it, and withdraw consent.'
     ' What was done before stays lawful.'),
    ('health_data', 'zh', '处理敏感个人信息（医疗健康信息）的单独同意',
     '就诊科室、就诊记录和分诊台测得的体征属于敏感个人信息。处理它们是为您诊疗和安排候诊所必需；'
     '只有当日接诊您的医务人员和分诊人员可以查看，每次查看均有记录，您可以随时查阅。'
     '不同意将无法在线预约，但您仍可到窗口就诊。'),
    ('health_data', 'en', 'Separate consent: data about your health',
     'Which department you visit, your visits, and what is measured at triage are sensitive personal data. They'
     ' are needed to treat you and to arrange your turn. Only those who see you that day may look at them; each'
     ' look is recorded, and you can read that record. Without this consent you cannot book online, but you are'
     ' seen at the window as ever.'),
    ('guardian', 'zh', '监护人同意书（不满十四周岁）',
     '我是该儿童的父母或其他监护人，同意本院按照个人信息处理规则处理该儿童的个人信息，包括医疗健康信息。'
     '我可以代其行使查阅、更正、导出、删除和撤回同意的权利。'),
    ('guardian', 'en', 'A guardian''s consent (for a child under 14)',
     'I am a parent or another guardian of this child. I agree that the hospital processes the child''s personal'
     ' data, data about health included, as its rules say. In the child''s name I may see, correct, export and'
     ' delete the data and withdraw this consent.'),
    ('messages', 'zh', '接收就诊提醒',
     '同意通过微信订阅消息或短信接收候诊、叫号、停诊等提醒。消息中不出现病情。随时可以关闭，不影响就诊。'),
    ('messages', 'en', 'Reminders',
     'Reminders of turns, calls and cancelled sessions may be sent to you by WeChat or SMS. They say nothing'
     ' about your health. You may turn them off at any time, and are seen all the same.')
  ) as t (kind, language, title, text);
