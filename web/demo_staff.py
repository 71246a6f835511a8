"""The demo's staff, who all have one known password: they can sign in only while --demo serves."""

from datetime import UTC, datetime
from typing import Final

import asyncpg

from engine.records import staff as records
from engine.records.catalog import Catalog
from engine.records.staff import NewStaff, Role
from web.passwords import hash_of
from web.patient.patients import new_id

DEMO_PASSWORD: Final = "xinglin-demo"
DEMO_PRACTITIONER: Final = "D0001"
DEMO_STAFF: Final = (
    ("demo-desk", "演示窗口", Role.DESK),
    ("demo-doctor", "演示医生", Role.DOCTOR),
    ("demo-office", "演示门诊办公室", Role.SCHEDULE_OFFICE),
    ("demo-manager", "演示门诊部主任", Role.MANAGER),
    ("demo-cashier", "演示收费员", Role.CASHIER),
    ("demo-his", "演示 HIS", Role.PARTNER),
    ("demo-nurse", "演示分诊护士", Role.NURSE),
    ("demo-kiosk", "演示自助机", Role.KIOSK),
    ("demo-screen", "演示叫号屏", Role.SCREEN),
)


async def open_demo_staff(connection: asyncpg.Connection, catalog: Catalog) -> None:
    """Makes those who are missing, and lets all of them in. Without D0001 there is no demo doctor."""
    known = await connection.fetch("select username from staff")
    usernames = {row["username"] for row in known}
    for username, name, role in DEMO_STAFF:
        practitioner_id = DEMO_PRACTITIONER if role is Role.DOCTOR else None
        if username in usernames or (practitioner_id and practitioner_id not in catalog.practitioners):
            continue
        new = NewStaff(username, name, hash_of(DEMO_PASSWORD), (role,), practitioner_id, is_demo=True)
        await records.add_staff(connection, new, new_id(), datetime.now(UTC))
    await connection.execute(
        "update staff set disabled = false, failed_count = 0, lock_count = 0, locked_until = null,"
        " failed_at = null where is_demo"
    )
    await connection.execute(
        "delete from sign_in_address a using staff s where s.id = a.staff_id and s.is_demo"
    )


async def close_demo_staff(connection: asyncpg.Connection) -> None:
    """A home that was a demo once keeps no door with a known password."""
    await connection.execute("update staff set disabled = true where is_demo and not disabled")
