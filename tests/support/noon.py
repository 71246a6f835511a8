"""A hospital where it is past noon whenever the tests run: its zone is chosen so.

Its files are the demo's, with sessions of its own, the same on every day of the week: a morning that is over,
an afternoon from 13:00 to 17:00 and an evening that is far, and departments without any.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.support.system import ROOT

DEMO: Final = ROOT / "web" / "demo" / "hospital"

LUNGS, HEART, STOMACH, WOMEN, EMERGENCY, BRAIN, GENERAL_PRACTICE, SURGERY, BLOOD = (
    "0301",
    "0304",
    "0302",
    "0501",
    "2001",
    "0303",
    "0201",
    "0401",
    "0305",
)
"""The stomach's morning is over; the emergency passes a triage desk; the brain has nobody; general practice
(the demo doctor's) takes no walk-ins; nobody checks in for the blood."""

SESSIONS: Final = (
    ("D0007", "afternoon", LUNGS),
    ("D0008", "afternoon", LUNGS),
    ("D0007", "night", LUNGS),
    ("D0034", "afternoon", HEART),
    ("D0036", "afternoon", HEART),
    ("D0016", "morning", STOMACH),
    ("D0209", "afternoon", WOMEN),
    ("D0190", "afternoon", EMERGENCY),
    ("D0009", "from noon", LUNGS),
    ("D0079", "afternoon", SURGERY),
    ("D0001", "afternoon", GENERAL_PRACTICE),
    ("D0043", "afternoon", BLOOD),
    ("D0043", "night", BLOOD),
)
TIMES: Final = {
    "morning": ("08:00", "12:00"),
    "from noon": ("12:00", "16:00"),  # has begun
    "afternoon": ("13:00", "17:00"),
    "night": ("19:00", "21:00"),
}
SOON: Final = "1330"
"""A slot that may be checked in to from half past eleven on."""
EVENING: Final = "1900"
"""One that may not be before five."""

POLICY: Final = f"""\
people: {{word_is_enough: yes}}
waiting:
  check_in: {{early: 2h, distance_metres_max: 500}}
  calling: {{calls_max: 3, recall_gap: 10s, answer: 1m, passes_max: 2}}
departments:
  "{GENERAL_PRACTICE}":
    waiting:
      walk_ins: {{enabled: no}}
  "{BLOOD}":
    waiting:
      check_in: {{required: no}}
  "{HEART}":
    waiting:
      queues:
        - {{id: ecg, kind: examination, prefix: X, first: 1, last: 999, name: 心电图室, name_en: ECG room}}
  "{EMERGENCY}":
    waiting:
      check_in: {{early: any_time, triage_queue: triage}}
      queues:
        - {{id: triage, kind: triage, prefix: T, first: 1, last: 999, name: 预检分诊台, name_en: Triage}}
      walk_ins: {{general_prefix: E}}
"""


def noon_zone() -> str:
    """Where it is between twelve and one. Signs are the other way round in these names."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


def noon_hospital(folder: Path) -> Path:
    """Writes its files into `folder`."""
    shutil.copytree(DEMO, folder, dirs_exist_ok=True)
    about = (folder / "hospital.yaml").read_text()
    head, _, _ = about.partition("# Closed days")
    (folder / "hospital.yaml").write_text(head.replace("Asia/Shanghai", noon_zone()))
    lines = [
        "practitioner_id,weekday,period,starts,ends,capacity,number_class_id,department_id,room_id,fee_fen"
    ]
    for weekday in range(1, 8):
        for practitioner_id, period, department_id in SESSIONS:
            starts, ends = TIMES[period]
            half = "afternoon" if period == "from noon" else period
            lines.append(f"{practitioner_id},{weekday},{half},{starts},{ends},30,expert,{department_id},,")
    (folder / "templates.csv").write_text("\n".join(lines) + "\n")
    (folder / "overrides.csv").write_text("practitioner_id,day,period,closed,starts,ends,capacity\n")
    (folder / "policy.yaml").write_text(POLICY)
    return folder
