"""候补: a patient waits for a number. What is free or comes back is offered to the first in line.

An offer is an appointment that is held for whoever waited: confirm it to take it, cancel it to decline.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from actors.changes import ms
from engine.domain import claims
from engine.domain import schedule as s
from engine.domain.eligibility import DepartmentRule, check
from engine.domain.ids import derived
from engine.domain.limits import WISH_SCHEDULES_MAX
from engine.domain.odds import Place, chance, comes_back
from engine.domain.policy import Channel
from engine.domain.refusal import Reason
from engine.records import appointments
from engine.records import wishes as records
from engine.records.facts import Question, facts
from engine.records.wishes import NewWish, Offered, Waiting, Wanted, WishRecord
from engine.views.places import clocks_of, closes_at, find_places
from web import keys
from web.auditing import audited, noted_delegation
from web.errors import Problem, refused
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import OVERLOAD, WORDS, uuid
from web.patient.bodies import IdPath
from web.patient.waitlist_bodies import OfferAnswer, PlaceAnswer, WishAnswer, WishBody, WishesAnswer
from web.wish_errands import end_of, now_ms

_HOUR_MS: Final = 3_600_000


@api.route(
    "POST",
    "/api/v1/waitlist",
    zh="加入候补",
    status=201,
    tags=["waitlist"],
    errors=[
        Fault.NO_SUCH_DEPARTMENT,
        Fault.NO_SUCH_PRACTITIONER,
        Fault.WISH_IMPOSSIBLE,
        Fault.WISH_TOO_WIDE,
        Reason.NO_SUCH_APPOINTMENT,
        Reason.NOT_BOOKED,
        Reason.NOT_ELIGIBLE,
        Reason.CONSENT_NEEDED,
        Reason.ALREADY_BOOKED,
        Reason.TIME_CONFLICT,
        Reason.NO_SUCH_SCHEDULE,
        Reason.NO_SUCH_SLOT,
        Reason.WAITLIST_CLOSED,
        Reason.WAITLIST_FULL,
        Reason.KEY_REUSED,
        Fault.DATABASE_DOWN,
    ],
)
async def join_waitlist(
    request: web.Request, *, account_id: bytes, idempotency_key: str, body: WishBody
) -> WishAnswer:
    """Waits for a number with these doctors on these days. Seats that are free are offered at once.

    Refused, with the reason, where it could never be met."""
    app = request.app
    pool, now = app[keys.POOL], now_ms()
    wish_id = derived(b"wish", account_id, idempotency_key.encode())
    patient_ids = tuple(each.bytes for each in body.patient_ids)
    known = await records.wish(pool, wish_id)
    if known is not None:
        return await _told_again(app, known, patient_ids, body)
    wanted = await _wanted(app, account_id, patient_ids, body)
    await _check_patients(app, account_id, patient_ids, wish_id, wanted, now)
    places = await _places(app, patient_ids, wanted, now)
    end = end_of(wanted.last_day, app[keys.ZONE])
    until = end if wanted.asked_until is None else min(end, wanted.asked_until)
    wish = NewWish(wish_id, account_id, patient_ids, wanted, places, until, now)
    async with pool.acquire() as connection, connection.transaction():
        limit = app[keys.POLICY].policy.wishes_max
        is_full = await records.lock_account(connection, account_id) >= limit
        if is_full and await records.wish(connection, wish_id) is None:
            raise Problem(Reason.NOT_ELIGIBLE, rule="wishes_max", limit=limit)
        added = await records.add_wish(connection, wish)
        made = await records.wish(connection, wish_id)
        assert made is not None
        if added:
            await audited(
                request, connection, "wish_made", subjects=patient_ids, object=("wish", uuid(wish_id))
            )
    if not added:  # the same request, sent twice at once
        return await _told_again(app, made, patient_ids, body)
    made, _ = await app[keys.WISHES].join(made, list(places), made_now=True)
    if made.refusal is not None:
        raise refused(made.refusal)
    return (await _described(app, [made]))[0]


@api.route("GET", "/api/v1/waitlist", zh="我的候补", tags=["waitlist"], errors=[Fault.DATABASE_DOWN])
async def list_wishes(request: web.Request, *, account_id: bytes) -> WishesAnswer:
    """Of this account, newest first, the ended ones too."""
    found = await records.wishes_of(request.app[keys.POOL], account_id)
    of = [patient_id for wish in found for patient_id in wish.patient_ids]
    await noted_delegation(request, account_id, "wish_read", of)
    return WishesAnswer(await _described(request.app, found))


@api.route(
    "GET",
    "/api/v1/waitlist/{id}",
    zh="候补详情",
    tags=["waitlist"],
    errors=[Reason.NO_SUCH_WISH, Fault.DATABASE_DOWN],
)
async def read_wish(request: web.Request, *, account_id: bytes, path: IdPath) -> WishAnswer:
    """One wish of this account: where it stands, what it was offered, its chance."""
    found = await _find(request.app, account_id, path)
    await noted_delegation(request, account_id, "wish_read", found.patient_ids)
    return (await _described(request.app, [found]))[0]


@api.route(
    "POST",
    "/api/v1/waitlist/{id}/withdraw",
    zh="撤回候补",
    tags=["waitlist"],
    errors=[Reason.NO_SUCH_WISH, *OVERLOAD],
)
async def withdraw_wish(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath
) -> WishAnswer:
    """Waits no more; what is offered goes to the next. A wish that has ended stays as it was."""
    app = request.app
    found = await _find(app, account_id, path)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        if await records.end(connection, found.id, "withdrawn"):
            await audited(
                request,
                connection,
                "wish_withdrawn",
                subjects=found.patient_ids,
                object=("wish", uuid(found.id)),
            )
    return (await _described(app, [await _find(app, account_id, path)]))[0]


async def _find(app: web.Application, account_id: bytes, path: IdPath) -> WishRecord:
    found = await records.wish(app[keys.POOL], path.id.bytes)
    if found is None or found.account_id != account_id or found.refusal is not None:
        raise Problem(Reason.NO_SUCH_WISH)
    return found


async def _told_again(
    app: web.Application, known: WishRecord, patient_ids: tuple[bytes, ...], body: WishBody
) -> WishAnswer:
    """A retry finds what became of the first attempt."""
    asked = _asked(body)
    if known.patient_ids != patient_ids or replace(known.wanted, before=None) != asked:
        raise Problem(Reason.KEY_REUSED)
    if known.refusal is not None:
        raise refused(known.refusal)
    return (await _described(app, [known]))[0]


def _asked(body: WishBody) -> Wanted:
    return Wanted(
        body.department,
        body.first_day,
        body.last_day,
        tuple(body.practitioners),
        body.title,
        tuple(body.periods),
        body.not_before,
        body.not_after,
        b"" if body.instead_of is None else body.instead_of.bytes,
        None,
        None if body.until is None else ms(body.until),
    )


async def _wanted(
    app: web.Application, account_id: bytes, patient_ids: tuple[bytes, ...], body: WishBody
) -> Wanted:
    """What the body says, with what it names looked up. Raises Problem."""
    catalog = app[keys.AVAILABILITY].catalog
    if body.department not in catalog.departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    if not set(body.practitioners) <= set(catalog.practitioners):
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    wanted = _asked(body)
    if not wanted.replaces:
        return wanted
    old = await appointments.appointment(app[keys.POOL], app[keys.VAULT], wanted.replaces, account_id)
    if old is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    if old.status != s.Status.BOOKED:
        raise Problem(Reason.NOT_BOOKED)
    if old.patient_id != patient_ids[0]:
        raise Problem(Fault.WISH_IMPOSSIBLE, rule="another_patient")
    return replace(wanted, before=ms(old.starts_at))


async def _check_patients(
    app: web.Application,
    account_id: bytes,
    patient_ids: Sequence[bytes],
    wish_id: bytes,
    wanted: Wanted,
    now: int,
) -> None:
    """Whether the account may book for them at all. Their visits and the department's rules are of each
    place. Raises Problem."""
    day = wanted.first_day
    found = await facts(
        app[keys.POOL],
        [
            Question(
                wish_id,
                each,
                account_id,
                wanted.department_id,
                day.isoformat(),
                claims.of_department_day(each, wanted.department_id, day.isoformat(), wish_id, None),
                claims.of_time(each, 0, wish_id, None),
                False,
            )
            for each in patient_ids
        ],
        now,
    )
    for patient_id, known in zip(patient_ids, found, strict=True):
        known = replace(
            known,
            department_day_owner=None,
            time_owner=None,
            active_appointments=known.active_appointments - bool(wanted.replaces),
            day_appointments=0,
        )
        refusal = check(known, DepartmentRule(), app[keys.POLICY].policy, day, now)
        if refusal is not None:
            raise refused(refusal, patient_id=uuid(patient_id))


async def _places(
    app: web.Application, patient_ids: Sequence[bytes], wanted: Wanted, now: int
) -> records.Places:
    """Where it could be met, as far as days are published. Raises Problem."""
    availability = app[keys.AVAILABILITY]
    if wanted.asked_until is not None and wanted.asked_until <= now:
        raise Problem(Fault.WISH_IMPOSSIBLE, rule="over")
    if wanted.last_day < datetime.now(app[keys.ZONE]).date():
        raise Problem(Fault.WISH_IMPOSSIBLE, rule="over")
    people = await records.members(app[keys.POOL], patient_ids, wanted.replaces)
    rows = availability.schedules(
        wanted.department_id, title=wanted.title, first=wanted.first_day, last=wanted.last_day
    )
    found = find_places(rows, availability.catalog, app[keys.POLICY].policy, wanted, people.values(), now)
    if not found.places and not await app[keys.WISHES].could_come(wanted):
        if isinstance(found.why_not, str):
            raise Problem(Fault.WISH_IMPOSSIBLE, rule=found.why_not)
        raise refused(found.why_not)
    if len(found.places) > WISH_SCHEDULES_MAX:
        raise Problem(Fault.WISH_TOO_WIDE, found=len(found.places), limit=WISH_SCHEDULES_MAX)
    return found.places


async def _described(app: web.Application, wishes: Sequence[WishRecord]) -> list[WishAnswer]:
    pool, zone = app[keys.POOL], app[keys.ZONE]
    places = {schedule_id for wish in wishes if wish.is_open for schedule_id in wish.places}
    queue = await records.waiting_at(pool, places) if places else []
    offered = await records.offered(pool, [wish.id for wish in wishes]) if wishes else {}
    return [
        WishAnswer(
            id=uuid(wish.id),
            status=wish.status,  # type: ignore[arg-type]  # the table's words are the contract's
            reason=wish.reason,
            department=wish.wanted.department_id,
            practitioners=list(wish.wanted.practitioner_ids),
            title=wish.wanted.title,
            first_day=wish.wanted.first_day,
            last_day=wish.wanted.last_day,
            patients=[uuid(each) for each in wish.patient_ids],
            instead_of=uuid(wish.wanted.replaces) if wish.wanted.replaces else None,
            places=(standing := _standing(wish, queue)),
            position=min((place.position for place in standing), default=None),
            chance=await _chance(app, wish, queue) if wish.status == "waiting" else None,
            offers=[_offer(app, each) for each in offered.get(wish.id, [])],
            until=datetime.fromtimestamp(wish.until / 1000, UTC).astimezone(zone),
            created_at=datetime.fromtimestamp(wish.made_at / 1000, UTC).astimezone(zone),
        )
        for wish in wishes
    ]


def _standing(wish: WishRecord, queue: Collection[Waiting]) -> list[PlaceAnswer]:
    """`queue` has the first in line first, over all these places."""
    found = []
    for schedule_id in sorted(wish.places, key=lambda each: (each[-8:], each)) if wish.is_open else ():
        here = [each.wish_id for each in queue if schedule_id in each.places]
        if wish.id in here:
            found.append(PlaceAnswer(schedule_id, here.index(wish.id) + 1, len(here)))
    return found


def _offer(app: web.Application, offered: Offered) -> OfferAnswer:
    zone = app[keys.ZONE]
    pending = offered.status == s.Status.PENDING
    return OfferAnswer(
        uuid(offered.appointment_id),
        uuid(offered.patient_id),
        offered.slot_id,
        offered.starts_at.astimezone(zone),
        WORDS[offered.status],
        offered.hold_until.astimezone(zone) if pending else None,
    )


async def _chance(app: web.Application, wish: WishRecord, queue: Collection[Waiting]) -> float:
    """By the seats as this gateway knows them, and who stands ahead for the same ones."""
    availability, policy, now = app[keys.AVAILABILITY], app[keys.POLICY].policy, now_ms()
    returns = await app[keys.WISHES].returns()
    mine = (-wish.priority, wish.made_at, wish.id)
    ahead = [each for each in queue if each.order < mine]
    found: list[Place] = []
    rivals: dict[bytes, int] = {}
    for schedule_id, clocks in wish.places.items():
        row = availability.schedule(schedule_id)
        if row is None:
            continue
        suits = clocks_of(row, clocks)
        here = [
            each
            for each in ahead
            if schedule_id in each.places and suits & clocks_of(row, each.places[schedule_id])
        ]
        rivals |= {each.wish_id: each.people for each in here}
        free, taken = 0, []
        closing = {
            slot.clock: min(wish.until, closes_at(policy, slot.session, slot.starts_at))
            for slot in availability.slots(row, Channel.MINI_PROGRAM, now)
            if slot.clock in suits and slot.session.status == "open"
        }
        # Seats that open (放号) before the first of these closes are as good as free: they go to the list.
        at = min((closes for closes in closing.values() if closes > now), default=now + 1) - 1
        for slot in availability.slots(row, Channel.MINI_PROGRAM, at):
            closes = closing.get(slot.clock, now)
            if closes <= now:
                continue
            free += slot.remaining
            back = comes_back(
                returns.of(slot.session.number_class_id),
                (slot.starts_at - now) / _HOUR_MS,
                (slot.starts_at - closes) / _HOUR_MS,
            )
            taken += [back] * (slot.capacity - slot.remaining)
        found.append(Place(free, tuple(taken), sum(each.people for each in here)))
    return round(chance(found, len(wish.patient_ids), sum(rivals.values())), 3)
