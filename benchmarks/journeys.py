"""A person's journey: what somebody does who wants a number, one request after the other.

They look at departments, doctors, months, days and slots, hold a number, take an alternative when it is gone,
confirm to pay at the hospital; some change it for another one, some cancel. Some bring their family, some
wait where nothing is left, and some stand at the window, where a clerk registers them. A 503 is asked again
with the same Idempotency-Key after its Retry-After.

How many do what is named in arrivals.json, with its source, or as assumed.
"""

import itertools
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import gevent
import orjson
from locust import FastHttpUser

from benchmarks import shapes
from benchmarks.recording import IN_ALL, NO_ALTERNATIVES, Run

TRIES_MAX: Final = 6  # of one request, when the answer is 503 or none
ALTERNATIVES_TAKEN_MAX: Final = 2
THINK_SECONDS: Final = (0.05, 0.30)  # between two requests of a person: their morning is squeezed, too
NEWCOMER_SHARE: Final = 0.03  # sign in and add their patient on the way; the others have done so before
MINE_SHARE: Final = 0.5  # look at "my appointments" afterwards (an assumption: no figure is public)
LOOKED_IN_VAIN_MAX: Final = 12  # reads beyond those planned, then a person gives up
TITLE_WEIGHTS: Final = {"chief": 4, "associate_chief": 3, "attending": 2, "resident": 1}  # an assumption
MIX: Final = shapes.FIGURES["mix"]
SOON: Final = timedelta(minutes=1)  # a slot that begins so soon is nobody's wish


@dataclass(frozen=True, slots=True)
class Said:
    """An answer as far as a person cares."""

    status: int  # 0: none came
    body: Any

    @property
    def code(self) -> str:
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


class Person:
    """Somebody who wants a number. Their choices come from the run's seed and their own number."""

    def __init__(self, run: Run, phone: FastHttpUser, number: int) -> None:
        self._phone = phone
        self._number = number
        self._run = run
        self._token, self._patient_id, self._relative_id = run.plan.people[number]
        self._department = ""  # that they looked at last
        self._tags: dict[str, str] = {}  # of what was read: path -> ETag
        self._chance = random.Random(f"{self._run.plan.seed}/{number}")
        self._keys = itertools.count()

    def prepare(self, due: float) -> None:
        """Before the time: in a rush, look at the slots that are about to be released."""
        if isinstance(self._run.load, shapes.ReleaseRush):
            wave = self._number // self._run.load.crowd
            self._schedule_id = self._chance.choice(self._run.plan.famous[wave])
            self._department = self._run.plan.departments[self._schedule_id]
            looks_at = due - self._chance.uniform(0.5, self._run.load.first_release)
            gevent.sleep(max(0.0, looks_at - self._run.now()))
            self._wanted = self._slots(self._schedule_id)

    def journey(self) -> None:
        match self._run.load:
            case shapes.ReleaseRush():
                self._book(self._chance.choice(self._wanted) if self._wanted else None, lead=0)
            case shapes.Morning():
                if self._is_so("at_the_window"):
                    self._at_the_window()
                    return
                self._newcomer()
                slot, lead = self._looks_around(self._run.load.reads)
                if slot is not None and self._is_so("family"):
                    self._family(slot)
                else:
                    self._book(slot, lead)

    def _is_so(self, what: str) -> bool:
        """Of as many people as the mix says."""
        return self._chance.random() < float(MIX[what])

    # Looking.

    def _looks_around(self, reads: int) -> tuple[str | None, int]:
        """So many reads, more where nothing is free: departments, then doctors and a day, or the month, and
        slots, again and again. Gives the slot that they want in the end, and how many days ahead it is."""
        departments = self._departments()
        done, opened = 1, ""
        found: tuple[str | None, int] = (None, 0)
        while done + 3 <= reads or found[0] is None:
            self._think()
            # Demand falls as 1 / rank: an assumption, no figure by department is public.
            department = self._chance.choices(departments, [1 / n for n in range(1, len(departments) + 1)])[0]
            self._department = department
            lead = self._lead()
            by_month = self._is_so("looks_at_the_month")
            if by_month:
                schedules = self._month(department, lead)
            else:
                self._read("doctors", f"/api/v1/departments/{department}/practitioners")
                self._think()
                schedules = self._schedules(department, lead)
            done += 2
            if schedules:
                self._think()
                opened = self._chance.choices(schedules, [TITLE_WEIGHTS[s["title"]] for s in schedules])[0][
                    "id"
                ]
                slots = self._slots(opened)
                done += 1
                found = (self._chance.choice(slots), lead) if slots else found
            if by_month:  # and back to the month, to see whether it still is so
                self._think()
                self._month(department, lead)
            if done > reads + LOOKED_IN_VAIN_MAX:
                break  # nothing is free anywhere they looked: they go home
        for _ in range(reads - done if opened else 0):
            self._think()
            self._slots(opened)
        return found

    def _departments(self) -> list[str]:
        said = self._read("departments", "/api/v1/departments")
        if not self._run.catalog and said.status == 200:
            above = {d["parent_id"] for d in said.body["departments"]}
            self._run.catalog = [d["id"] for d in said.body["departments"] if d["id"] not in above]
        return self._run.catalog or ["0201"]

    def _schedules(self, department: str, lead: int) -> list[dict[str, Any]]:
        day = self._run.plan.days[lead]
        said = self._read("schedules", f"/api/v1/schedules?department={department}&from={day}&to={day}")
        return [s for s in said.body["schedules"] if s["remaining"] > 0] if said.status == 200 else []

    def _month(self, department: str, lead: int) -> list[dict[str, Any]]:
        """All days of a department; what has not changed since the last look is not sent again."""
        day = self._run.plan.days[lead]
        said = self._read("month", f"/api/v1/schedules?department={department}")
        if said.status != 200:
            return []
        return [s for s in said.body["schedules"] if s["date"] == day and s["remaining"] > 0]

    def _slots(self, schedule_id: str) -> list[str]:
        """Those that have a seat and have not begun."""
        said = self._read("slots", f"/api/v1/schedules/{schedule_id}/slots")
        if said.status != 200:
            return []
        first = said.body["slots"][0]["start"] if said.body["slots"] else None
        now = None if first is None else datetime.now(datetime.fromisoformat(first).tzinfo)
        soon = now and (now + SOON).isoformat()
        return [s["id"] for s in said.body["slots"] if s["remaining"] > 0 and s["start"] > soon]

    def _lead(self) -> int:
        days = len(self._run.plan.days)
        return self._chance.choices(range(days), shapes.lead_weights(days))[0]

    def _read(self, kind: str, path: str) -> Said:
        return self._ask(kind, "GET", path)

    # Booking.

    def _newcomer(self) -> None:
        """Some have no account yet."""
        if self._chance.random() >= NEWCOMER_SHARE:
            return
        code = f"sandbox:bench-{self._run.plan.seed}-{self._run.plan.shape}-{self._number}"
        said = self._ask("sign in", "POST", "/api/v1/sessions", {"grant": "wechat", "code": code})
        if said.status != 201:
            return
        known, self._token = self._token, said.body["access_token"]
        body = {
            "name": "测试新人",
            "id_type": "passport",
            "id_number": f"N{self._run.plan.seed}{self._run.plan.shape[:1].upper()}{self._number:06d}",
            "phone": f"139{self._number:08d}",
            "relation": "self",
        }
        said = self._ask("add patient", "POST", "/api/v1/patients", body)
        if said.status == 201:
            self._patient_id = said.body["id"]
        else:
            self._token = known

    def _book(self, slot: str | None, lead: int) -> None:
        if slot is None:
            self._run.record(IN_ALL, self._run.now(), "nothing free")
            return
        began = self._run.now()
        said, key = self._hold(slot)
        for choice in self._alternatives(said):
            if said.status == 201:
                break
            self._think()
            said, key = self._hold(slot := choice)
        self._run.record(IN_ALL, began, _outcome("hold", said))
        if said.status != 201:
            if said.code == "slot_full" and self._is_so("waits"):
                self._think()
                self._wait(slot)
            return
        appointment = said.body["id"]
        told = {"id": appointment, "number": said.body["number"], "slot_id": said.body["slot_id"], "key": key}
        self._run.promise(said="held", patient_id=self._patient_id, **told)
        self._think()
        # Those who would not come, by the data, here never confirm: their numbers wait out the hold.
        if self._chance.random() >= shapes.no_show_rate(lead):
            booked = self._tell("confirm", appointment, "booked")
            self._think()
            if booked and self._is_so("changed"):
                appointment = self._change(appointment, slot)
                self._think()
        if self._chance.random() < MINE_SHARE:
            self._read("my appointments", "/api/v1/appointments")
            self._think()
        if self._chance.random() < shapes.FIGURES["cancelled"]["share"]:
            self._tell("cancel", appointment, "cancelled")

    def _hold(self, slot: str) -> tuple[Said, str]:
        key = self._key()
        body = {"slot_id": slot, "patient_id": self._patient_id}
        return self._ask("hold", "POST", "/api/v1/appointments", body, key), key

    def _alternatives(self, said: Said) -> Iterator[str]:
        """What the refusal offers, from the best down; a person's second choice is a bit random, or the
        whole crowd would move on to the same seat."""
        if said.code == "slot_full":
            offered = [a["slot_id"] for a in said.body.get("alternatives", [])]
            if not offered:
                self._run.record(NO_ALTERNATIVES, self._run.now(), "nothing free")
            yield from self._chance.sample(offered, min(ALTERNATIVES_TAKEN_MAX, len(offered)))

    def _tell(self, kind: str, appointment: str, becomes: str) -> bool:
        """Confirms or cancels."""
        self._run.promise(said=f"{kind} asked", id=appointment)
        said = self._ask(kind, "POST", f"/api/v1/appointments/{appointment}/{kind}", None, self._key())
        done = said.status == 200 and said.body["status"] == becomes
        if done:
            self._run.promise(said=becomes, id=appointment)
        return done

    def _change(self, appointment: str, slot: str) -> str:
        """To another time of the same doctor's day; gives the number that they have afterwards."""
        slots = [other for other in self._slots(slot.rpartition("-")[0]) if other != slot]
        if not slots:
            return appointment
        to = self._chance.choice(slots)
        path = f"/api/v1/appointments/{appointment}/reschedule"
        self._run.promise(said="change asked", id=appointment)
        said = self._ask("change", "POST", path, {"slot_id": to}, self._key())
        if said.status == 200:
            told = {"new": said.body["id"], "number": said.body["number"], "slot_id": to}
            self._run.promise(said="changed", id=appointment, patient_id=self._patient_id, **told)
            return str(said.body["id"])
        if 400 <= said.status < 500:
            self._run.promise(said="booked", id=appointment)  # as before
        return appointment

    def _family(self, slot: str) -> None:
        """Two numbers side by side, or none."""
        patients, key = [self._patient_id, self._relative_id], self._key()
        body = {"slot_id": slot, "patient_ids": patients}
        said = self._ask("group", "POST", "/api/v1/appointment-groups", body, key)
        if said.status != 201:
            return
        held = said.body["appointments"]
        for n, (one, patient) in enumerate(zip(held, patients, strict=True)):
            told = {"id": one["id"], "number": one["number"], "slot_id": one["slot_id"]}
            self._run.promise(said="held", patient_id=patient, key=f"{key}/{n}", **told)
        for one in held:
            self._think()
            self._tell("confirm", one["id"], "booked")

    def _wait(self, slot: str) -> None:
        """On the waiting list of the doctor's day."""
        practitioner, day, _ = slot.split("-")
        on = f"{day[:4]}-{day[4:6]}-{day[6:]}"
        where = {"department": self._department, "practitioners": [practitioner], "from": on, "to": on}
        body = {"patient_ids": [self._patient_id], **where}
        self._ask("wait", "POST", "/api/v1/waitlist", body, self._key())

    def _at_the_window(self) -> None:
        """A clerk looks for a slot, and registers somebody who has never been here."""
        department, lead = self._chance.choice(self._departments()), self._lead()
        schedules = self._schedules(department, lead)
        slots = self._slots(self._chance.choice(schedules)["id"]) if schedules else []
        if not slots:
            return
        slot, key = self._chance.choice(slots), self._key()
        person = {
            "name": "测试来人",
            "id_type": "passport",
            "id_number": f"D{self._run.plan.seed}{self._run.plan.shape[:1].upper()}{self._number:06d}",
            "phone": f"138{self._number:08d}",
        }
        self._token = self._run.plan.desk
        said = self._ask(
            "desk", "POST", "/api/v1/desk/appointments", {"slot_id": slot, "patient": person}, key
        )
        if said.status == 201:
            told = {"id": said.body["id"], "number": said.body["number"], "slot_id": slot, "key": key}
            self._run.promise(said="held", patient_id=said.body["patient_id"], **told)
            self._run.promise(said="booked", id=said.body["id"])

    def _key(self) -> str:
        return f"{self._run.plan.seed}-{self._run.plan.shape}-{self._number}-{next(self._keys)}"

    # On the wire.

    def _ask(
        self, kind: str, method: str, path: str, body: dict[str, Any] | None = None, key: str | None = None
    ) -> Said:
        """Asks until there is a definite answer: 503 and silence are asked again, with the same key."""
        said = Said(0, None)
        for _ in range(TRIES_MAX):
            said, pause = self._once(kind, method, path, body, key)
            if said.status not in (0, 503):
                break
            gevent.sleep(pause * self._chance.uniform(1.0, 2.0))
        return said

    def _once(
        self, kind: str, method: str, path: str, body: dict[str, Any] | None, key: str | None
    ) -> tuple[Said, float]:
        """The answer, and the seconds after which it may be asked again."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept-Language": "en"}
        if key is not None:
            headers["Idempotency-Key"] = key
        if method == "GET" and path in self._tags:
            headers["If-None-Match"] = self._tags[path]
        data = None
        if body is not None:
            data = orjson.dumps(body)
            headers["Content-Type"] = "application/json"
        sent = self._run.now()
        with self._phone.client.request(
            method, path, name=kind, data=data, headers=headers, catch_response=True
        ) as response:
            content = response.content if response.status_code else b""
            if kind == "month" and "ETag" in response.headers:
                self._tags[path] = response.headers["ETag"]
            said = Said(response.status_code or 0, orjson.loads(content) if content else None)
            outcome = _outcome(kind, said)
            self._run.record(kind, sent, outcome)
            if outcome in ("failed", "no answer"):
                print(f"{kind}: {said.status} {content[:300]!r} {response.error}", file=sys.stderr)
                response.failure(f"{said.status} {said.code}")
            else:
                response.success()
            pause = float(response.headers.get("Retry-After", 1)) if said.status == 503 else 0.5
        return said, pause

    def _think(self) -> None:
        gevent.sleep(self._chance.uniform(*THINK_SECONDS))


def _outcome(kind: str, said: Said) -> str:
    """One word an answer: held, full and refused are of holds; unchanged is 304; shed and unknown are 503."""
    if said.status == 0:
        return "no answer"
    if said.status == 503:
        return "unknown" if said.code == "outcome_unknown" else "shed"
    if said.status == 304:
        return "unchanged"
    if said.status in (200, 201):
        return "held" if kind == "hold" else "ok"
    if said.code == "slot_full":
        return "full"
    # What the rules may well say to somebody who did nothing wrong.
    return "refused" if said.code in EXPECTED_REFUSALS else "failed"


EXPECTED_REFUSALS: Final = frozenset(
    {"slot_past", "already_booked", "time_conflict", "not_eligible", "not_released", "group_does_not_fit"}
    | {"waitlist_closed", "waitlist_full", "wish_impossible", "change_given_up"}
)
