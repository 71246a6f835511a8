"""The Schedules and Slots of the sandbox's FHIR form: one Slot for each place of the hospital's sessions."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from integrations.his.sandbox_hospital import Hospital, Json, Registered

HOURS: Final = {"morning": (8, 12), "afternoon": (14, 17), "night": (18, 21)}
LAZY_PERIODS: Final = ("morning", "afternoon")  # of a day that nobody said anything about

BASE: Final = "urn:xinglin"

Put = Callable[[Json], Json]


class Places:
    """`store`: Schedules and Slots by type and id, as the form keeps them; `put` gives versions."""

    def __init__(self, hospital: Hospital, store: dict[str, dict[str, Json]], put: Put) -> None:
        self._hospital = hospital
        self._store = store
        self._put = put
        self._made: dict[tuple[str, str, str], int] = {}  # session -> places

    def schedules(self) -> list[Json]:
        """One of each doctor."""
        for one in self._hospital.practitioners:
            id_ = f"s{one['code']}"
            if id_ not in self._store["Schedule"]:
                self._put(
                    {
                        "resourceType": "Schedule",
                        "id": id_,
                        "actor": [{"reference": f"Practitioner/p{one['code']}"}],
                        "serviceType": [
                            {"coding": [{"system": f"{BASE}:department", "code": one["department"]}]}
                        ],
                    }
                )
        return list(self._store["Schedule"].values())

    def ask_day(self, practitioner: str, day: str) -> None:
        """Places are there for whoever asks for that doctor's day, as in the other forms."""
        if any(one["code"] == practitioner for one in self._hospital.practitioners):
            for period in LAZY_PERIODS:
                self._hospital.session(practitioner, day, period)

    def slots(self) -> list[Json]:
        for key, session in list(self._hospital.sessions.items()):
            if self._made.get(key) != session["capacity"]:
                self._make(key, session["capacity"])
        taken = self._taken()
        return [self._as_it_is(slot, taken) for slot in self._store["Slot"].values()]

    def _make(self, key: tuple[str, str, str], capacity: int) -> None:
        practitioner, day, period = key
        of_session = f"t{practitioner}-{day.replace('-', '')}-{period}-"
        opens, ends = HOURS[period]
        first = datetime.fromisoformat(f"{day}T{opens:02}:00:00").replace(tzinfo=self._hospital.zone)
        minutes = (ends - opens) * 60
        for n in range(capacity, self._made.get(key, 0)):
            del self._store["Slot"][f"{of_session}{n + 1}"]
        self._made[key] = capacity
        for n in range(capacity):
            start, end = (first + timedelta(minutes=minutes * k // capacity) for k in (n, n + 1))
            id_ = f"{of_session}{n + 1}"
            slot = self._store["Slot"].get(id_, {"resourceType": "Slot", "id": id_, "status": "free"})
            schedule = {"reference": f"Schedule/s{practitioner}"}
            self._put({**slot, "schedule": schedule, "start": start.isoformat(), "end": end.isoformat()})

    def _taken(self) -> set[str]:
        """References of the Slots that registrations have: those they name, and for a window's the first at
        its time."""
        taken: set[str] = set()
        for one in self._hospital.registrations.values():
            if one.status != "cancelled":
                told = self._store["Appointment"].get(one.his_id, {}).get("slot") or ()
                taken.update(slot["reference"] for slot in told)
                if not told and (reference := self._of_window(one)):
                    taken.add(reference)
        return taken

    def _of_window(self, one: Registered) -> str:
        for slot in self._store["Slot"].values():
            if slot["schedule"]["reference"] == f"Schedule/s{one.practitioner}":
                start, end = (datetime.fromisoformat(slot[bound]) for bound in ("start", "end"))
                if start <= one.starts_at < end:
                    return f"Slot/{slot['id']}"
        return ""

    def _as_it_is(self, slot: Json, taken: set[str]) -> Json:
        """What is said of it by the registrations; what was put there by hand stays."""
        session = self._session_of(slot)
        if session is None:
            return slot
        if f"Slot/{slot['id']}" in taken:
            return {**slot, "status": "busy"}
        return {**slot, "status": "free" if session["status"] == "open" else "busy-unavailable"}

    def _session_of(self, slot: Json) -> Json | None:
        made = slot["id"][1:].rsplit("-", 3)
        if len(made) != 4 or slot["id"][0] != "t":
            return None
        practitioner, day, period, _ = made
        return self._hospital.sessions.get((practitioner, f"{day[:4]}-{day[4:6]}-{day[6:]}", period))
