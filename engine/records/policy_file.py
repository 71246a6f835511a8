"""policy.yaml, read and checked to the last key: docs/POLICY.md is the format.

Reading collects every error with line, column and path, so that whoever writes the rules corrects them in one
go. Terms are layers: the hospital's defaults, a class, a department, a class in a department. Each says only
what is its own; the reader makes the whole terms of every pair that the file names.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

from engine.domain.conduct import PRESETS
from engine.domain.consents import ConsentKind
from engine.domain.limits import HOLD_SECONDS_MAX, SLOT_CAPACITY_MAX
from engine.domain.policy import (
    APPROVABLE,
    APPROVERS,
    EVERYBODY,
    SUBSTITUTES,
    Attendance,
    Channel,
    ConductRule,
    Fate,
    Flow,
    Moment,
    Offence,
    Opening,
    Policy,
    Pool,
    Return,
    Returned,
    Subject,
    Suspension,
    Terms,
    Waitlist,
)
from engine.domain.waiting_terms import WaitingTerms
from engine.records.hospital_rules import POLICY, FileError
from engine.records.payment_file import payment_section, refund_rules
from engine.records.takers import (
    Layer,
    Take,
    days,
    layer,
    limit,
    minutes,
    name_of,
    put,
    seconds,
    whole_number,
    yes_no,
)
from engine.records.waiting_terms_file import WaitingLevel, waiting_level, waiting_terms
from engine.records.yaml_values import WRONG, Value, Wrong, read_yaml

BYTES_MAX: Final = 1024 * 1024

DAYS_BEFORE_MAX: Final = 366
MINUTES_BEFORE_MAX: Final = 30 * 24 * 60  # closing times and cut-offs
RETURN_SECONDS_MAX: Final = 24 * 3600
OFFER_SECONDS_MAX: Final = 7 * 24 * 3600
CONDUCT_DAYS_MAX: Final = 3_660

CHANNELS: Final[Mapping[str, Channel]] = {
    channel.name.lower(): channel for channel in Channel if channel.name
}
CHANNEL_WORDS: Final = ("everybody", *CHANNELS)


@dataclass(frozen=True, slots=True)
class Known:
    """The ids that a policy may name."""

    departments: Mapping[str, bool]  # id -> whether patients book it, that is, none is below it
    number_classes: Collection[str]
    practitioners: Collection[str] = ()  # may not be named: their queues have these ids


class PolicyRefused(Exception):
    """The file is not right; `errors` in its order. Nothing was changed."""

    def __init__(self, errors: Collection[FileError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: (error.line, error.column)))
        super().__init__("\n".join(map(str, self.errors)))


def read_policy(text: str, fallback: Policy, known: Known | None = None, file: str = POLICY) -> Policy:
    """The policy that the text describes; what it does not say is as in `fallback`.

    `known`: ids are checked, too. Raises PolicyRefused with every error found; `file` is its name there.
    """
    errors: list[FileError] = []
    top = read_yaml(text, file, errors)
    policy = fallback if top is None else _Reading(fallback, known).policy(top)
    if errors:
        raise PolicyRefused(errors)
    return policy


@dataclass(frozen=True, slots=True)
class _Reading:
    fallback: Policy
    known: Known | None

    def policy(self, top: Value) -> Policy:
        entries = top.mapping((*_HOSPITAL_WIDE, *_SECTIONS))
        given = layer(entries, _HOSPITAL_WIDE)
        if "conduct" in entries:
            given["conduct"] = _conduct(entries["conduct"])
        if "approvals" in entries:
            given["approvals"] = _approvals(entries["approvals"])
        if "suspension" in entries:
            given["suspension"] = _suspension(entries["suspension"])
        if "booking" in entries:
            given |= layer(entries["booking"].mapping(tuple(_BOOKING)), _BOOKING)
        if "people" in entries:
            given |= layer(entries["people"].mapping(tuple(_PEOPLE)), _PEOPLE)
        if "privacy" in entries:
            given |= layer(entries["privacy"].mapping(tuple(_PRIVACY)), _PRIVACY)
        terms = self._terms(entries)
        given |= self._money(entries)
        return replace(self.fallback, **given, terms=terms, waiting=self._waiting_rooms(entries))

    def _money(self, entries: Mapping[str, Value]) -> Layer:
        refunds = refund_rules(entries)
        if "payment" not in entries:
            return {"money": replace(self.fallback.money, refunds=refunds)}
        known = None if self.known is None else {id_ for id_, leaf in self.known.departments.items() if leaf}
        section = payment_section(entries["payment"], known)
        money = replace(self.fallback.money, **section.money, refunds=refunds)
        return {"money": money, "prices": section.prices, **section.policy}

    def _terms(self, entries: Mapping[str, Value]) -> dict[tuple[str, str], Terms]:
        """The whole terms of every pair that is named, and of those that two single names make together."""
        defaults = _level(entries["defaults"]) if "defaults" in entries else _Level({})
        classes = self._classes(entries["classes"]) if "classes" in entries else {}
        found = {("", ""): self._whole(defaults)}
        for class_id, level in classes.items():
            found["", class_id] = self._whole(defaults, level)
        if "departments" not in entries:
            return found
        for id_, (key, value) in entries["departments"].entries().items():
            self._check_department(id_, key)
            level = _level(value, "classes", "waiting")
            within = value.entries_quietly().get("classes")
            own = self._classes(within) if within is not None else {}
            found[id_, ""] = self._whole(defaults, level)
            for class_id in (*classes, *own):
                levels = classes.get(class_id, _Level({})), level, own.get(class_id, _Level({}))
                found[id_, class_id] = self._whole(defaults, *levels)
        return found

    def _waiting_rooms(self, entries: Mapping[str, Value]) -> dict[str, WaitingTerms]:
        """The hospital's, and those of every department that says something of its own."""
        ids = () if self.known is None else (self.known.number_classes, self.known.practitioners)
        hospital = waiting_level(entries["waiting"], *ids) if "waiting" in entries else WaitingLevel()
        whole = {"": waiting_terms(hospital)}
        if "departments" in entries:
            for id_, department in entries["departments"].entries_quietly().items():
                own = department.entries_quietly().get("waiting")
                if own is not None:
                    level = waiting_level(own, *ids)
                    # What is wrong with the hospital's own is told once, not again for each department.
                    whole[id_] = None if whole[""] is None else waiting_terms(hospital, level)
        return {id_: terms for id_, terms in whole.items() if terms is not None}

    def _classes(self, section: Value) -> "dict[str, _Level]":
        found = {}
        for id_, (key, value) in section.entries().items():
            if self.known is not None and id_ not in self.known.number_classes:
                known = ", ".join(sorted(self.known.number_classes))
                key.wrong(f"the hospital has no such number class: it has {known}")
            found[id_] = _level(value)
        return found

    def _check_department(self, id_: str, key: Value) -> None:
        if self.known is None:
            return
        bookable = self.known.departments.get(id_)
        if bookable is None:
            key.wrong("the hospital has no such department: correct the id, as it is in departments.csv")
        elif not bookable:
            key.wrong("has departments under it, and patients book those: name each of them")

    def _whole(self, *levels: "_Level") -> Terms:
        """The levels merged field by field, the last one that says something wins."""
        merged: Layer = {}
        waitlist: Layer = {}
        closing = None
        for level in levels:
            merged |= level.given
            waitlist |= level.waitlist
            closing = level.closing or closing
        whole = replace(Terms(self.fallback.hold_seconds), **merged, waitlist=Waitlist(**waitlist))
        closes, list_closes = whole.closes_minutes, whole.waitlist.closes_minutes
        if closing is not None and whole.waitlist.enabled and list_closes < closes:
            closing.wrong_once(
                f"booking closes {closes}m before the visit, the waiting list {list_closes}m before: nobody"
                f" could book what it gives back then, so set waitlist.closes to {closes}m or more"
            )
        return whole


@dataclass(frozen=True, slots=True)
class _Level:
    """What one level of the file says of its terms."""

    given: Layer
    waitlist: Layer = field(default_factory=dict)
    closing: Value | None = None  # where it says when booking or the waiting list closes


def _level(value: Value, *sections: str) -> _Level:
    entries = value.mapping((*_TERMS, *_LISTS, "refunds", *sections))
    given = layer(entries, _TERMS)
    if "openings" in entries:
        put(given, "openings", _openings(entries["openings"]))
    if "pools" in entries:
        put(given, "pools", _pools(entries["pools"]))
    if "returned" in entries:
        put(given, "returned", _returned(entries["returned"]))
    if "attendance" in entries:
        put(given, "attendance", _attendance(entries["attendance"]))
    waitlist = _waitlist(entries["waitlist"]) if "waitlist" in entries else {}
    return _Level(given, waitlist, entries.get("closes", entries.get("waitlist")))


def _never_or_minutes(value: Value) -> int | None | Wrong:
    if value.is_word("never"):
        return None
    found = value.duration("m", 0, 24 * 60)
    return WRONG if found is None else found


def _substitutes(value: Value) -> str | Wrong:
    return value.word(SUBSTITUTES) or WRONG


_HOSPITAL_WIDE: Final[Mapping[str, tuple[str, Take]]] = {
    "active_appointments_max": ("active_appointments_max", whole_number(1, 1_000)),
    "account_holds_max": ("account_holds_max", whole_number(1, 1_000)),
    "day_appointments_max": ("day_appointments_max", whole_number(1, 100)),
    "wishes_max": ("wishes_max", whole_number(0, 100)),
    "late_cancel": ("late_cancel_minutes", minutes(MINUTES_BEFORE_MAX)),
    "delegation": ("delegation_days", days(1, 3_660)),
    "substitutes": ("substitutes", _substitutes),
    "no_show_after": ("no_show_after_minutes", _never_or_minutes),
}
_BOOKING: Final[Mapping[str, tuple[str, Take]]] = {"real_name_required": ("real_name_required", yes_no)}
_PEOPLE: Final[Mapping[str, tuple[str, Take]]] = {
    "guardian_required": ("guardian_required", yes_no),
    "word_is_enough": ("word_is_enough", yes_no),
}


def _consents(value: Value) -> tuple[ConsentKind, ...] | Wrong:
    words = [item.word([kind.value for kind in ConsentKind]) for item in value.items()]
    if not value.is_list or None in words:
        return WRONG
    return tuple(kind for kind in ConsentKind if kind in words)


_PRIVACY: Final[Mapping[str, tuple[str, Take]]] = {
    "consents_required": ("consents_required", _consents),
    "staff_names": ("staff_named_to_patients", yes_no),
}
_SECTIONS: Final = (
    "conduct",
    "approvals",
    "suspension",
    "booking",
    "people",
    "privacy",
    "payment",
    "waiting",
    "defaults",
    "classes",
    "departments",
)

_TERMS: Final[Mapping[str, tuple[str, Take]]] = {
    "hold": ("hold_seconds", seconds(1, HOLD_SECONDS_MAX)),
    "closes": ("closes_minutes", minutes(MINUTES_BEFORE_MAX)),
    "cancel_closes": ("cancel_minutes", minutes(MINUTES_BEFORE_MAX)),
    "change_closes": ("change_minutes", minutes(MINUTES_BEFORE_MAX)),
    "changes_max": ("changes_max", whole_number(0, 100)),
    "first_visits_max": ("first_visits_max", limit(SLOT_CAPACITY_MAX)),
    "follow_ups_max": ("follow_ups_max", limit(SLOT_CAPACITY_MAX)),
    "follow_up_within": ("follow_up_days", days(0, CONDUCT_DAYS_MAX)),
}
_LISTS: Final = ("openings", "pools", "returned", "waitlist", "attendance")

assert {name for name, _ in _TERMS.values()} | set(_LISTS) == {f.name for f in fields(Terms)}


def _moment(entries: Mapping[str, Value]) -> Moment | None:
    days = entries["days_before"].whole(0, DAYS_BEFORE_MAX) if "days_before" in entries else None
    minute = entries["at"].clock() if "at" in entries else None
    return None if days is None or minute is None else Moment(days, minute)


def _order(moment: Moment) -> int:
    """Later is greater."""
    return moment.minute - moment.days_before * 24 * 60


def _openings(value: Value) -> tuple[Opening, ...] | Wrong:
    found: list[Opening] = []
    ok = True
    items = value.items()
    for item in items:
        entries = item.mapping(_OPENING, _OPENING)
        percent = entries["percent"].whole(1, 100) if "percent" in entries else None
        at = _moment(entries)
        if percent is None or at is None:
            ok = False
        elif any(other.at == at for other in found):
            item.wrong("another opening is at this moment: make one of the two")
            ok = False
        else:
            found.append(Opening(percent, at))
    total = sum(opening.percent for opening in found)
    if ok and items and total != 100:
        value.wrong(f"the percents make {total}: they must make 100")
        ok = False
    return tuple(sorted(found, key=lambda opening: _order(opening.at))) if ok and value.is_list else WRONG


_OPENING: Final = ("percent", "days_before", "at")


def _pools(value: Value) -> tuple[Pool, ...] | Wrong:
    found: list[Pool] = []
    ok = True
    for item in value.items():
        entries = item.mapping(("name", "percent", "channels", "flows"), ("name", "percent", "channels"))
        name = name_of(entries["name"]) if "name" in entries else None
        percent = entries["percent"].whole(1, 100) if "percent" in entries else None
        channels = _channels(entries["channels"]) if "channels" in entries else None
        flows = _flows(entries["flows"]) if "flows" in entries else ()
        if name is None or percent is None or channels is None or isinstance(flows, Wrong):
            ok = False
        elif any(other.name == name for other in found):
            entries["name"].wrong(f"another pool is called {name!r}: give each its own name")
            ok = False
        else:
            found.append(Pool(name, percent, channels, flows))
    total = sum(pool.percent for pool in found)
    if total > 100:
        value.wrong(f"the percents make {total}: together they may have 100, and what is left is everybody's")
        ok = False
    return tuple(found) if ok and value.is_list else WRONG


def _flows(value: Value) -> tuple[Flow, ...] | Wrong:
    found: list[Flow] = []
    ok = value.is_list
    for item in value.items():
        entries = item.mapping(("days_before", "at", "to"), ("days_before", "at", "to"))
        at = _moment(entries)
        channels = _channels(entries["to"]) if "to" in entries else None
        if at is None or channels is None:
            ok = False
        elif any(other.at == at for other in found):
            item.wrong("another flow is at this moment: make one of the two")
            ok = False
        else:
            found.append(Flow(at, channels))
    return tuple(sorted(found, key=lambda flow: _order(flow.at))) if ok else WRONG


def _channels(value: Value) -> Channel | None:
    """A list of channels, or the one word `everybody`."""
    if value.is_word("everybody"):
        return EVERYBODY
    found = Channel(0)
    ok = True
    for item in value.items():
        word = item.word(CHANNEL_WORDS)
        if word is None:
            ok = False
        else:
            found |= EVERYBODY if word == "everybody" else CHANNELS[word]
    if ok and value.is_list and not found:
        value.wrong("is empty: name a channel at least, or write everybody")
    return found if ok and found else None


def _returned(value: Value) -> Returned | Wrong:
    entries = value.mapping(("mode", "wait", "from", "to"), ("mode",))
    word = entries["mode"].word([mode.value for mode in Return]) if "mode" in entries else None
    if word is None:
        return WRONG
    mode = Return(word)
    needed = {Return.AT_ONCE: (), Return.COOL_DOWN: ("wait",), Return.RANDOM: ("from", "to")}[mode]
    window: list[int] = []
    ok = True
    for name in ("wait", "from", "to"):
        if (name in entries) != (name in needed):
            ok = False
            if name in entries:
                entries[name].wrong(f"has no meaning with mode {word}: remove it")
            else:
                value.wrong(f"missing key {name!r}: mode {word} needs {' and '.join(needed)}")
        elif name in needed:
            count = entries[name].duration("s", 0, RETURN_SECONDS_MAX)
            ok = ok and count is not None
            window.append(count or 0)
    if not ok:
        return WRONG
    if mode is Return.RANDOM and window[0] >= window[1]:
        entries["to"].wrong("the window ends before it begins: `to` must be longer than `from`")
        return WRONG
    return Returned(mode, *window)


def _attendance(value: Value) -> Attendance | None | Wrong:
    if value.is_word("never"):
        return None
    entries = value.mapping(_ATTENDANCE, _ATTENDANCE)
    told = [
        entries[name].duration("m", 1, MINUTES_BEFORE_MAX) if name in entries else None
        for name in _ATTENDANCE
    ]
    asked, by = told
    if asked is None or by is None:
        return WRONG
    if asked <= by:
        entries["by"].wrong("nobody could answer: `by` must be nearer to the visit than `from`")
        return WRONG
    return Attendance(asked, by)


_ATTENDANCE: Final = ("from", "by")


def _waitlist(value: Value) -> Layer:
    return layer(value.mapping(tuple(_WAITLIST)), _WAITLIST)


_WAITLIST: Final[Mapping[str, tuple[str, Take]]] = {
    "enabled": ("enabled", yes_no),
    "offer": ("offer_seconds", seconds(30, OFFER_SECONDS_MAX)),
    "closes": ("closes_minutes", minutes(MINUTES_BEFORE_MAX)),
    "length_max": ("length_max", whole_number(1, 100_000)),
}

assert {name for name, _ in _WAITLIST.values()} == {f.name for f in fields(Waitlist)}


def _conduct(value: Value) -> tuple[ConductRule, ...]:
    found: dict[str, ConductRule] = {}
    for item in value.items():
        entries = item.entries_quietly()
        rules = _preset(item) if "preset" in entries else _rule(item)
        for rule in rules:
            if rule.name in found:
                item.wrong(f"another rule is called {rule.name!r}: remove one of them or rename it")
            else:
                found[rule.name] = rule
    return tuple(found.values())


def _preset(item: Value) -> tuple[ConductRule, ...]:
    word = item.mapping(("preset",))["preset"].word(tuple(PRESETS))
    return () if word is None else PRESETS[word]


def _rule(item: Value) -> tuple[ConductRule, ...]:
    entries = item.mapping(_RULE, _RULE)
    name = name_of(entries["name"]) if "name" in entries else None
    offence = entries["offence"].word([o.value for o in Offence]) if "offence" in entries else None
    subject = entries["subject"].word([s.value for s in Subject]) if "subject" in entries else None
    count = entries["count"].whole(1, 1_000) if "count" in entries else None
    window = entries["window"].duration("d", 1, CONDUCT_DAYS_MAX) if "window" in entries else None
    block = entries["block"].duration("d", 1, CONDUCT_DAYS_MAX) if "block" in entries else None
    if name is None or offence is None or subject is None or count is None or window is None or block is None:
        return ()
    return (ConductRule(name, Offence(offence), Subject(subject), count, window, block),)


_RULE: Final = ("name", "offence", "subject", "count", "window", "block")


def _approvals(value: Value) -> dict[str, str]:
    found = {}
    for word, role in value.mapping(APPROVABLE).items():
        who = role.word(APPROVERS)
        if who is not None:
            found[word] = who
    return found


def _suspension(value: Value) -> Suspension:
    return Suspension(**layer(value.mapping(tuple(_SUSPENSION)), _SUSPENSION))


def _fates(value: Value) -> tuple[Fate, ...] | Wrong:
    found: list[Fate] = []
    ok = value.is_list
    for item in value.items():
        word = item.word([fate.value for fate in Fate])
        if word is None:
            ok = False
        elif Fate(word) in found:
            item.wrong(f"{word} stands here twice: keep the first")
            ok = False
        else:
            found.append(Fate(word))
    if ok and (not found or found[-1] is not Fate.REFUNDED):
        value.wrong("must end with refunded, which is always possible: nobody may be left without an end")
        ok = False
    return tuple(found) if ok else WRONG


_SUSPENSION: Final[Mapping[str, tuple[str, Take]]] = {
    "order": ("order", _fates),
    "offer": ("offer_seconds", seconds(60, OFFER_SECONDS_MAX)),
    "within": ("days_max", days(0, DAYS_BEFORE_MAX)),
}
