"""Invented rows in the format of "Medical Appointment No Shows", and the real file where there is one."""

from pathlib import Path

from web.no_shows import COLUMNS

HEADER = ",".join(COLUMNS)
REAL = Path(__file__).parents[3] / "shared" / "data" / "KaggleV2-May-2016.csv.gz"
"""Not ours to copy into the repository; the README says where people find it."""

_NEIGHBOURHOODS = ("JARDIM DA PENHA", "MARIA ORTIZ", "REPÚBLICA", "ILHA DO BOI")


def line(**changes: str) -> str:
    """One good row, with some values replaced (No_show for No-show)."""
    values = {
        "PatientId": "29872499824296",
        "AppointmentID": "5642903",
        "Gender": "F",
        "ScheduledDay": "2016-04-29T18:38:08Z",
        "AppointmentDay": "2016-05-03T00:00:00Z",
        "Age": "62",
        "Neighbourhood": "JARDIM DA PENHA",
        **dict.fromkeys(("Scholarship", "Hipertension", "Diabetes", "Alcoholism", "Handcap"), "0"),
        "SMS_received": "0",
        "No-show": "No",
        **{name.replace("No_show", "No-show"): value for name, value in changes.items()},
    }
    return ",".join(values[column] for column in COLUMNS)


def invented(rows: int) -> str:
    """So many rows: patients that come again, all ages, three weeks."""
    lines = [HEADER]
    for n in range(rows):
        lines.append(
            line(
                PatientId=str(1_000 + n * 7 % max(1, rows * 3 // 4)),
                AppointmentID=str(5_000_000 + n),
                Gender="FM"[n * 7 % max(1, rows * 3 // 4) % 2],
                ScheduledDay=f"2016-05-{2 + n % 5:02}T{7 + n % 10:02}:{n % 60:02}:00Z",
                AppointmentDay=f"2016-05-{9 + n % 5 + n % 3 * 7:02}T00:00:00Z",
                Age=str(n * 7 % max(1, rows * 3 // 4) % 100),
                Neighbourhood=_NEIGHBOURHOODS[n % 4],
                SMS_received=str(n % 2),
                No_show="Yes" if n % 5 == 0 else "No",
            )
        )
    return "\n".join(lines) + "\n"
