"""The public data set "Medical Appointment No Shows", and how its patients find the hospital's slots.

110,527 real appointments of public clinics in Vitória, Brazil, 2016; one CSV row each. Pure: no network, no
clock, no chance. The same file on the same hospital and day gives the same patients and the same wishes.

Who asks when. Rows arrive in the order of ScheduledDay, the moment the real patient asked.

Which day. The appointment's weekday is kept. The weeks of the file fold onto the published days in order:
of n published Tuesdays, the first n-th of the file's weeks takes the first, and so on, so that whoever
went earlier goes earlier. Today is left out, because parts of it have passed. A weekday that is not
published, and a day on which the department has no clinic, give way to the nearest one that is.

Which department. Each neighbourhood ranks all departments in an order of its own (a hash of both names),
and a patient goes to the first that sees patients of this sex and age.

Which slot. The appointment's id says the half hour that suits (08:00 to 17:30); of the department's slots
with a free seat on that day, the nearest one is asked for. Where none is free the nearest is asked for all
the same: what the server offers instead is part of the test.

Who. A patient is an account `replay-<PatientId>` with one patient, made up: the identity number has a
province code that does not exist (99), so it is nobody's, and a true check digit; the telephone number is
one of those kept for fiction.

Who cancels. Those who did not come and had no message to remind them (No-show=Yes, SMS_received=0).
"""

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from engine.domain.eligibility import DepartmentRule, full_years
from engine.records.identity import check_digit

COLUMNS: Final = (
    "PatientId",
    "AppointmentID",
    "Gender",
    "ScheduledDay",
    "AppointmentDay",
    "Age",
    "Neighbourhood",
    "Scholarship",
    "Hipertension",
    "Diabetes",
    "Alcoholism",
    "Handcap",
    "SMS_received",
    "No-show",
)
AGE_MAX: Final = 130

_GZIP: Final = b"\x1f\x8b"
_PATIENT: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?([Ee][+-]?[0-9])?")  # five are as 9377952927E-5
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_MOMENT: Final = "%Y-%m-%dT%H:%M:%SZ"
_OPENS_MINUTE: Final = 8 * 60
_HALF_HOURS: Final = 20


class WrongFile(Exception):
    """One line that says why this file is not the data set."""


@dataclass(frozen=True, slots=True)
class Row:
    appointment_id: str
    patient: str  # as it may stand in an openid
    sex: str  # male | female
    scheduled: datetime
    day: date
    age: int
    neighbourhood: str
    cancels: bool


class BadRow(NamedTuple):
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class DataSet:
    rows: list[Row]  # in the order in which they arrive
    bad: list[BadRow]


# Reading.


def read(path: Path, limit: int | None = None) -> DataSet:
    """The first `limit` rows of the file, plain or gzipped. Raises WrongFile."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == _GZIP
            raw.seek(0)
            plain = gzip.GzipFile(fileobj=raw) if zipped else raw
            return _parse(path, io.TextIOWrapper(plain, encoding="utf-8-sig", newline=""), limit)
    except UnicodeDecodeError:
        raise WrongFile(f"{path}: is not UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise WrongFile(f"{path}: is damaged: {error}") from None
    except OSError as error:
        raise WrongFile(f"{path}: cannot be read: {error.strerror}") from None


def _parse(path: Path, text: Iterable[str], limit: int | None) -> DataSet:
    lines = csv.reader(text, strict=True)
    header: list[str]
    rows: list[Row] = []
    bad: list[BadRow] = []
    seen: set[str] = set()
    try:
        header = next(lines, [])
        if tuple(header) != COLUMNS:
            differs = next((c for c in COLUMNS if c not in header), None)
            why = (
                f"the column {differs!r} is missing"
                if differs
                else "the columns are others, or in another order"
            )
            raise WrongFile(f"{path}:1: not the header of 'Medical Appointment No Shows': {why}")
        for cells in islice(lines, limit):
            row = _row(cells)
            if isinstance(row, Row) and row.appointment_id in seen:
                row = f"AppointmentID {row.appointment_id} was there before"
            if isinstance(row, str):
                bad.append(BadRow(lines.line_num, row))
            else:
                seen.add(row.appointment_id)
                rows.append(row)
    except csv.Error as error:
        raise WrongFile(f"{path}:{lines.line_num}: not CSV: {error}") from None
    rows.sort(key=lambda row: (row.scheduled, row.appointment_id))
    return DataSet(rows, bad)


def _row(cells: Sequence[str]) -> Row | str:
    """The row, or what is wrong with it."""
    if len(cells) != len(COLUMNS):
        return f"has {len(cells)} values, not {len(COLUMNS)}"
    patient, appointment_id, gender, scheduled_day, appointment_day, age, neighbourhood, *_, sms, no_show = (
        cells
    )
    if not _PATIENT.fullmatch(patient):
        return f"PatientId {patient!r} is not a number"
    if not _NUMBER.fullmatch(appointment_id):
        return f"AppointmentID {appointment_id!r} is not a number"
    if gender not in ("F", "M"):
        return f"Gender {gender!r} is neither F nor M"
    scheduled, day = _moment(scheduled_day), _moment(appointment_day)
    if scheduled is None or day is None:
        wrong = scheduled_day if scheduled is None else appointment_day
        return f"{wrong!r} is not a time like 2016-04-29T18:38:08Z"
    if scheduled.date() > day.date():
        return f"was scheduled on {scheduled.date()}, after its day {day.date()}"
    if not age.isascii() or not age.isdecimal() or len(age) > 3 or int(age) > AGE_MAX:
        return f"Age {age!r} is not from 0 to {AGE_MAX}"
    if not neighbourhood.strip():
        return "Neighbourhood is blank"
    if sms not in ("0", "1"):
        return f"SMS_received {sms!r} is neither 0 nor 1"
    if no_show not in ("Yes", "No"):
        return f"No-show {no_show!r} is neither Yes nor No"
    return Row(
        appointment_id,
        format(Decimal(patient), "f").replace(".", "_"),
        "female" if gender == "F" else "male",
        scheduled,
        day.date(),
        int(age),
        neighbourhood.strip(),
        no_show == "Yes" and sms == "0",
    )


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return None


# People.


@dataclass(frozen=True, slots=True)
class MadePatient:
    openid: str
    name: str
    id_number: str
    phone: str
    sex: str
    born: date


_FAMILY: Final = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜"
_GIVEN: Final = "安宁平和静远明清文思嘉佳子若一雨晨星海山春秋景云舒然亦可心怡欣悦"


def made_patient(row: Row, today: date) -> MadePatient:
    """Of this sex, and on `today` of this age."""
    number = _hash("patient", row.patient)
    number, days = divmod(number, 365)
    birthday = date(2001, 1, 1) + timedelta(days)  # of a year without 29 February
    had_it = (birthday.month, birthday.day) <= (today.month, today.day)
    born = birthday.replace(year=today.year - row.age - (not had_it))
    number, area = divmod(number, 10_000)
    number, order = divmod(number, 500)
    number, phone = divmod(number, 100)
    number, family = divmod(number, len(_FAMILY))
    number, first = divmod(number, len(_GIVEN))
    second = number % len(_GIVEN)
    # The order's last digit is odd for men.
    digits = f"99{area:04}{born:%Y%m%d}{order * 2 + (row.sex == 'male'):03}"
    return MadePatient(
        f"replay-{row.patient}",
        _FAMILY[family] + _GIVEN[first] + _GIVEN[second],
        digits + check_digit(digits),
        f"+120255501{phone:02}",
        row.sex,
        born,
    )


# Places.


@dataclass(slots=True)
class Place:
    """A slot as the replay knows it: `free` follows the answers it gets, not what others book meanwhile."""

    slot_id: str
    department_id: str
    day: date
    minute: int  # of the day, in the hospital's zone
    free: int


class Places:
    """What the hospital publishes from tomorrow on, and where a row goes in it."""

    def __init__(
        self, rules: Mapping[str, DepartmentRule], places: Iterable[Place], weeks: Iterable[date]
    ) -> None:
        self.by_slot = {place.slot_id: place for place in places}
        self._of_day: dict[tuple[str, date], list[Place]] = defaultdict(list)
        self._days: dict[str, set[date]] = defaultdict(set)
        for place in sorted(self.by_slot.values(), key=lambda place: (place.minute, place.slot_id)):
            self._of_day[place.department_id, place.day].append(place)
            self._days[place.department_id].add(place.day)
        self._rules = {id_: rule for id_, rule in rules.items() if id_ in self._days}
        self._rankings: dict[str, list[str]] = {}
        self._folded: dict[date, date] = {}
        self._weeks = {monday: n for n, monday in enumerate(sorted({monday_of(day) for day in weeks}))}

    @cached_property
    def days(self) -> list[date]:
        return sorted({place.day for place in self.by_slot.values()})

    def day_of(self, day: date) -> date:
        found = self._folded.get(day)
        if found is None:
            found = self._folded[day] = self._fold(day)
        return found

    def _fold(self, day: date) -> date:
        for later in range(7):
            same = [d for d in self.days if d.weekday() == (day.weekday() + later) % 7]
            if same:
                return same[self._weeks[monday_of(day)] * len(same) // len(self._weeks)]
        raise LookupError("no day is published")

    def wish(self, row: Row, patient: MadePatient) -> Place | None:
        """The slot to ask for; None when no department sees this patient."""
        day = self.day_of(row.day)
        department_id = next(self._departments(row, patient, day), None)
        if department_id is None:
            return None
        day = min(self._days[department_id], key=lambda d: (abs((d - day).days), d))
        minute = _OPENS_MINUTE + 30 * (_hash("time", row.appointment_id) % _HALF_HOURS)
        places = self._of_day[department_id, day]
        return min(places, key=lambda place: (place.free <= 0, abs(place.minute - minute)))

    def _departments(self, row: Row, patient: MadePatient, day: date) -> Iterator[str]:
        ranking = self._rankings.get(row.neighbourhood)
        if ranking is None:
            ranking = sorted(self._rules, key=lambda id_: _hash("department", f"{row.neighbourhood}/{id_}"))
            self._rankings[row.neighbourhood] = ranking
        age = full_years(patient.born, day)
        return (id_ for id_ in ranking if _sees(self._rules[id_], patient.sex, age))


def monday_of(day: date) -> date:
    return day - timedelta(day.weekday())


def _sees(rule: DepartmentRule, sex: str, age: int) -> bool:
    return (
        rule.sex in (None, sex)
        and (rule.age_min is None or age >= rule.age_min)
        and (rule.age_max is None or age <= rule.age_max)
    )


def _hash(what: str, of: str) -> int:
    """The same on every machine and in every run, unlike Python's own."""
    return int.from_bytes(hashlib.blake2b(f"{what}/{of}".encode(), digest_size=12).digest(), "big")
