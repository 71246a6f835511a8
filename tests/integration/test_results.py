"""Reports of laboratories, over real MLLP and as FHIR: in versions, for the right patient."""

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from actors.directory import Directory
from engine import embedded_postgres
from engine.domain.intake import Finding
from engine.domain.reports import ReportStatus, changes
from engine.embedded_postgres import free_port
from engine.records import report_versions, reports
from engine.records.patient_numbers import numbers_of
from engine.records.report_versions import Version
from engine.settings import Settings
from integrations.connector import OutcomeUnknown, TryAgain
from integrations.hl7v2 import mllp
from integrations.hl7v2.client import Client, Peer
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Message, parse
from integrations.lis.sandbox import Fault, Sandbox
from tests.support.copies import copied, migrated
from tests.support.intake import Waiting, intake_over
from tests.support.npm_peers import peer_sends
from tests.support.people import add_person
from web.intake.intake import Outcome
from web.results.receiving import INTERFACE, Receiving
from web.sync.app import opened
from web.sync.config import SyncConfig
from web.sync.systems import MAKERS, systems_from, systems_of

PATIENT = bytes.fromhex("0190a0b0c0d0780080000000000000aa")
OTHER = bytes.fromhex("0190a0b0c0d0780080000000000000bb")
NAME = "欧阳若兰"
ID_NUMBER = "E12345678"
ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def original(postgres: embedded_postgres.EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


class Lab:
    """What the tests do with one receiver."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.receiving = Receiving(waiting.pool, waiting.vault, waiting.intake, lambda: ZONE, waiting.now)

    async def hl7(self, raw: bytes, charset: str = "utf-8") -> tuple[str, str]:
        """MSA-1 and ERR-8 of the answer."""
        answer = parse((await self.receiving.hl7(raw, charset))[-1])
        trouble = answer.find("ERR")
        return answer.first("MSA").text(1), "" if trouble is None else trouble.text(8)

    async def versions(self, number: str = "L1", source: str = "lis") -> list[Version]:
        id_ = reports.report_id(self.waiting.vault, source, number)
        async with self.waiting.pool.acquire() as connection:
            head = await reports.head_of(connection, id_)
            if head is None:
                return []
            return await report_versions.versions_of(connection, self.waiting.vault, id_, head.patient_id)

    async def shown(
        self, patient_id: bytes = PATIENT, *, only_final: bool = False
    ) -> list[reports.ReportRow]:
        async with self.waiting.pool.acquire() as connection:
            return await reports.reports_of(
                connection, self.waiting.vault, patient_id, 50, only_final=only_final
            )


@pytest.fixture
async def lab(original: str) -> AsyncIterator[Lab]:
    async with copied(original) as url, intake_over(url) as waiting:
        await add_person(waiting.pool, waiting.vault, PATIENT, name=NAME, id_number=ID_NUMBER)
        yield Lab(waiting)


def oru(
    control: str = "1",
    *,
    number: str = "L1",
    status: str = "F",
    minutes: int = 0,
    pid: str = f"{PATIENT.hex()}^^^XINGLIN^PI",
    name: str = NAME,
    obx: tuple[str, ...] = ("NM|GLU^葡萄糖||5.6|mmol/L|3.9-6.1|N|||F",),
    more: str = "",
    charset: str = "UNICODE UTF-8",
    header: str = "LIS|LAB|XINGLIN|",
    processing: str = "P",
) -> str:
    taken = (NOW - timedelta(hours=2)).astimezone(ZONE).strftime("%Y%m%d%H%M%S")
    at = (NOW - timedelta(hours=2) + timedelta(minutes=minutes)).astimezone(ZONE).strftime("%Y%m%d%H%M%S")
    lines = [
        f"MSH|^~\\&|{header}|{at}||ORU^R01^ORU_R01|{control}|{processing}|2.5.1||||||{charset}",
        f"PID|1||{pid}||{name}||19800101|F",
        "PV1|1|O|内科门诊",
        f"ORC|RE|O1|{number}",
        f"OBR|1|O1|{number}|GLUC^葡萄糖测定|||{taken}|||||||||1001^李^医生||||||{at}||LAB|{status}",
        *(f"OBX|{n}|{one}" for n, one in enumerate(obx, 1)),
    ]
    return "\r".join(lines) + "\r" + more


async def test_a_report_is_kept_sealed_and_opens_whole(lab: Lab) -> None:
    pdf = base64.b64encode(b"%PDF-1.4 \x00\xff" * 1000).decode()
    raw = oru(
        obx=(
            "NM|GLU^葡萄糖||7.9|mmol/L|3.9-6.1|H|||F",
            "ST|COL^性状||淡黄\\T\\清亮",
            "SN|AFP^甲胎蛋白||<^1.3|ng/mL|0-7",
            "CWE|ABO^血型||A^A型^L",
            f"ED|PDF^报告单||LIS^application^PDF^Base64^{pdf}",
        ),
        more="NTE|1||空腹采血\r",
    )
    raw = raw.replace("OBX|2", "NTE|1||复查过\rOBX|2")
    assert await lab.hl7(raw.encode()) == ("AA", "")
    (row,) = await lab.shown()
    (version,) = await lab.versions()
    report = row.report
    assert report.status is ReportStatus.FINAL and report.title == "葡萄糖测定"
    assert report.doctor == "李医生" and report.department == "内科门诊"
    assert [(one.code, one.value, one.unit, one.flag) for one in report.observations] == [
        ("GLU", "7.9", "mmol/L", "high"),
        ("COL", "淡黄&清亮", "", ""),
        ("AFP", "<1.3", "ng/mL", ""),
        ("ABO", "A型", "", ""),
    ]
    assert report.observations[0].note == "复查过" and report.conclusion == "空腹采血"
    assert version.sizes == (11_000,)
    async with lab.waiting.pool.acquire() as connection:
        document = await report_versions.attachment(connection, lab.waiting.vault, row.id, PATIENT, 1, 1)
        elsewhere = await report_versions.attachment(connection, lab.waiting.vault, row.id, PATIENT, 1, 2)
    assert document is not None and document.content == b"%PDF-1.4 \x00\xff" * 1000 and elsewhere is None
    dump = ""
    for table in ("report", "report_version", "report_attachment", "intake_message"):
        dump += repr([tuple(row) for row in await lab.waiting.pool.fetch(f"select * from {table}")])
    for word in ("葡萄糖", "7.9", "L1'", NAME, "PDF-1.4", "李"):
        assert word not in dump and repr(word.encode())[2:-1] not in dump


async def test_gb18030_is_read_by_what_it_declares(lab: Lab) -> None:
    raw = oru(charset="GB 18030-2000", name="欧阳若兰", obx=("ST|X^镕||䶮丨|",)).encode("gb18030")
    assert await lab.hl7(raw) == ("AA", "")
    assert (await lab.shown())[0].report.observations[0].value == "䶮丨"
    undeclared = oru("2", number="L2", charset="").encode("gb18030")
    assert await lab.hl7(undeclared, "gb18030") == ("AA", "")


async def test_versions_replace_each_other_and_late_ones_do_not(lab: Lab) -> None:
    glucose = "NM|GLU^葡萄糖||{}|mmol/L|3.9-6.1|{}|||F"
    assert (await lab.hl7(oru("1", status="P", obx=(glucose.format("7.9", "H"),)).encode()))[0] == "AA"
    assert await lab.shown(only_final=True) == []  # nobody has signed it
    await lab.hl7(oru("3", status="C", minutes=30, obx=(glucose.format("5.9", "N"),)).encode())
    await lab.hl7(oru("2", status="F", minutes=10, obx=(glucose.format("7.9", "H"),)).encode())  # late
    await lab.hl7(oru("4", status="P", minutes=50, obx=(glucose.format("1.1", "LL"),)).encode())  # nonsense
    (row,) = await lab.shown(only_final=True)
    assert (row.version, row.report.status, row.report.observations[0].value) == (
        2,
        ReportStatus.CORRECTED,
        "5.9",
    )
    found = await lab.versions()
    assert [(one.version, one.report.status.value, one.is_late) for one in found] == [
        (1, "preliminary", False),
        (2, "corrected", False),
        (3, "final", True),
        (4, "preliminary", True),
    ]
    told = [(one.code, one.what, one.before, one.after) for one in changes(found[2].report, found[1].report)]
    assert told == [
        ("", "status", "final", "corrected"),
        ("GLU", "value", "7.9", "5.9"),
        ("GLU", "flag", "high", "normal"),
    ]


async def test_a_correction_that_is_taken_back_is_a_version_of_its_own(lab: Lab) -> None:
    glucose = "NM|GLU^葡萄糖||{}|mmol/L|3.9-6.1|N|||F"
    for n, value in enumerate(("5.1", "5.2", "5.1"), 1):
        raw = oru(str(n), status="C", minutes=n, obx=(glucose.format(value),))
        assert (await lab.hl7(raw.encode()))[0] == "AA"
    assert (await lab.shown())[0].report.observations[0].value == "5.1"
    assert len(await lab.versions()) == 3
    again = oru("9", status="C", minutes=9, obx=(glucose.format("5.1"),))
    assert (await lab.hl7(again.encode()))[0] == "AA"  # the same words in another message
    assert len(await lab.versions()) == 3


async def test_the_same_message_again_changes_nothing(lab: Lab) -> None:
    for _ in range(3):
        assert await lab.hl7(oru().encode()) == ("AA", "")
    assert len(await lab.versions()) == 1
    assert lab.waiting.counted(INTERFACE, "duplicate") == 2


async def test_a_name_that_is_not_the_patients_is_held_back(lab: Lab) -> None:
    code, why = await lab.hl7(oru(name="欧阳若男").encode())
    assert code == "AE" and why.startswith("patient.name another_person") and "若男" not in why
    assert await lab.shown() == []


async def test_numbers_of_two_people_in_one_message_are_held_back(lab: Lab) -> None:
    await add_person(lab.waiting.pool, lab.waiting.vault, OTHER, name=NAME, id_number="E87654321")
    code, why = await lab.hl7(oru(pid=f"{PATIENT.hex()}^^^XINGLIN^PI~E87654321^^^^PPN").encode())
    assert code == "AE" and why.startswith("patient.numbers several_people")


async def test_a_reports_number_stays_its_patients(lab: Lab) -> None:
    await lab.hl7(oru().encode())
    await add_person(lab.waiting.pool, lab.waiting.vault, OTHER, name="王五", id_number="E87654321")
    raw = oru("2", minutes=5, pid=f"{OTHER.hex()}^^^XINGLIN^PI", name="王五")
    assert (await lab.hl7(raw.encode()))[0] == "AE"
    assert len(await lab.versions()) == 1 and await lab.shown(OTHER) == []


async def test_their_number_is_learned_from_a_document_and_used_alone_later(lab: Lab) -> None:
    await lab.hl7(oru(pid=f"M77^^^LAB^MR~{ID_NUMBER}^^^^PPN").encode())
    async with lab.waiting.pool.acquire() as connection:
        known = await numbers_of(connection, lab.waiting.vault, PATIENT)
    assert [(one.system, one.number) for one in known] == [("lab", "M77")]
    assert (await lab.hl7(oru("2", number="L2", pid="M77^^^LAB^MR", name="").encode()))[0] == "AA"
    assert len(await lab.shown()) == 2


async def test_a_report_for_nobody_waits_and_is_there_when_the_patient_is(lab: Lab) -> None:
    raw = oru(pid="E99999999^^^^PPN", name="新来的人")
    assert await lab.hl7(raw.encode()) == ("AA", "")
    assert await lab.versions() == []
    await add_person(lab.waiting.pool, lab.waiting.vault, OTHER, name="新来的人", id_number="E99999999")
    lab.waiting.later(seconds=5)
    assert await lab.waiting.intake.retry_waiting() == 1
    assert len(await lab.shown(OTHER)) == 1
    assert await lab.waiting.one("select state from intake_message") == "accepted"


async def test_who_is_erased_gets_no_report(lab: Lab) -> None:
    await lab.waiting.pool.execute(
        "update patient set record_key = null, name = null, id_number = null, id_index = null"
    )
    assert await lab.hl7(oru().encode()) == ("AA", "")  # nobody we know
    assert await lab.versions() == []


async def test_several_orders_in_one_message_are_reports_of_their_own(lab: Lab) -> None:
    second = oru(number="L2", obx=("NM|K^钾||900|mmol/L|3.5-5.3|HH|||F",))
    more = second[second.index("ORC|") :]
    code, why = await lab.hl7(oru(more=more).encode())
    assert code == "AE" and "observations[0].value implausible" in why and "900" not in why
    assert [one.report.number for one in await lab.shown()] == ["L1"]  # the sound one is in


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        ({"status": "Z"}, "AE", "status unknown_code"),
        ({"pid": ""}, "AE", "patient.numbers missing"),
        ({"minutes": 60 * 24 * 30}, "AE", "changed_at in_the_future"),
        ({"obx": ("XX|A^B||1",)}, "AE", "observations[0].value value_type"),
        ({"obx": ("ED|P^P||L^application^PDF^Base64^@@@@",)}, "AE", "attachments[0] base64"),
        ({"obx": ("RP|P^P||http://10.0.0.1/x.pdf",)}, "AE", "attachments[0] pointer"),
        ({"obx": ("ED|P^P||L^text^HTML^Base64^PGI+",)}, "AE", "attachments[0].media_type unknown_code"),
        ({"processing": "T"}, "AR", "only production"),
    ],
)
async def test_what_is_wrong_is_answered_and_kept(
    lab: Lab, change: dict[str, Any], code: str, why: str
) -> None:
    told = await lab.hl7(oru(**change).encode())
    assert told[0] == code and told[1].startswith(why)
    assert await lab.versions() == []
    kept = await lab.waiting.one("select count(*) from intake_message where state = 'quarantined'")
    assert kept == (0 if code == "AR" else 1)


async def test_a_message_for_another_hospital_is_rejected(lab: Lab) -> None:
    from engine.records.intake import store_rules

    own = "lis.report:\n  addressed: {field: receiver.application, among: [XINGLIN]}\n"
    await store_rules(lab.waiting.pool, own, "u", lab.waiting.now())
    code, why = await lab.hl7(oru(header="LIS|LAB|ELSEWHERE|").encode())
    assert code == "AR" and why.startswith("receiver.application not_for_us")
    assert (await lab.hl7(oru("2").encode()))[0] == "AA"


async def test_garbage_is_malformed_and_kept_with_where(lab: Lab) -> None:
    for raw in (b"", b"\xff\xfe\x00", b"MSH|^~\\&|", oru().encode().replace(b"PID|", b"QID|")):
        with pytest.raises(Malformed):
            await lab.receiving.hl7(raw, "utf-8")
    assert await lab.waiting.one("select count(*) from intake_message where state = 'quarantined'") == 4


# As FHIR.


def fhir_report(**changed: Any) -> dict[str, Any]:
    at = (NOW - timedelta(hours=1)).isoformat()
    return {
        "resourceType": "DiagnosticReport",
        "contained": [
            {
                "resourceType": "Observation",
                "id": "g",
                "status": "final",
                "code": {"coding": [{"code": "GLU", "display": "葡萄糖"}]},
                "valueQuantity": {"value": 7.9, "unit": "mmol/L"},
                "referenceRange": [{"low": {"value": 3.9}, "high": {"value": 6.1}}],
                "interpretation": [{"coding": [{"code": "H"}]}],
            }
        ],
        "identifier": [{"system": "urn:lab", "value": "F1"}],
        "status": "final",
        "code": {"text": "葡萄糖测定"},
        "subject": {"identifier": {"system": "urn:xinglin:patient", "value": PATIENT.hex()}, "display": NAME},
        "issued": at,
        "result": [{"reference": "#g"}],
        **changed,
    }


async def test_a_diagnostic_report_of_fhir_is_the_same_report(lab: Lab) -> None:
    raw = b"{}"
    (taken,) = await lab.receiving.fhir(fhir_report(), "p1", "lab", raw)
    assert taken.outcome is Outcome.ACCEPTED
    (row,) = await lab.shown()
    one = row.report.observations[0]
    assert (one.code, one.value, one.unit, one.reference, one.flag) == (
        "GLU",
        "7.9",
        "mmol/L",
        "3.9-6.1",
        "high",
    )
    (again,) = await lab.receiving.fhir(fhir_report(), "p1", "lab", raw)
    assert again.outcome is Outcome.DUPLICATE
    amended = fhir_report(status="amended", conclusion="已复核", issued=NOW.isoformat())
    await lab.receiving.fhir(amended, "p1", "lab", raw)
    assert (await lab.shown())[0].report.status is ReportStatus.CORRECTED


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"status": "banana"}, ("status", "unknown_code")),
        ({"result": [{"reference": "#x"}]}, ("result[0]", "dangling")),
        ({"result": "#g"}, ("DiagnosticReport.result", "shape")),
        ({"issued": "yesterday"}, ("changed_at", "shape")),
        ({"subject": {"reference": "http://evil.example/Patient/1"}}, ("patient.numbers", "missing")),
        (
            {"presentedForm": [{"contentType": "application/pdf", "url": "http://10.0.0.1/"}]},
            ("attachments[0]", "pointer"),
        ),
    ],
)
async def test_fhir_that_is_wrong_is_held_back(
    lab: Lab, changed: dict[str, Any], finding: tuple[str, str]
) -> None:
    (taken,) = await lab.receiving.fhir(fhir_report(**changed), "p1", "lab", b"{}")
    assert taken.outcome is Outcome.QUARANTINED
    first = taken.reasons[0]
    assert isinstance(first, Finding) and (first.field, first.rule) == finding


# Over the wire, with the sandbox.


@asynccontextmanager
async def listening(lab: Lab) -> AsyncIterator[mllp.Server]:
    server = await mllp.serve("127.0.0.1", 0, partial(lab.receiving.hl7, charset="utf-8"))
    try:
        yield server
    finally:
        await server.close()


async def test_the_sandbox_delivers_in_versions_whatever_its_faults(lab: Lab) -> None:
    clock = [NOW.timestamp() - 600]
    async with listening(lab) as server:
        sandbox = Sandbox("127.0.0.1", server.port, lambda: clock[0])
        sandbox.fail(
            Fault.DUPLICATE,
            Fault.MALFORMED,
            Fault.WRONG_CHARSET,
            Fault.IMPLAUSIBLE,
            Fault.STRANGER,
            Fault.REORDERED,
        )
        for n in range(12):
            sandbox.order(f"T{n}", PATIENT.hex(), "female")
        for _ in range(4):
            await sandbox.deliver()
            clock[0] += 60
        await sandbox.deliver()
        await sandbox.close()
    signed = {one.number for one in sandbox.ledger if one.status in "FC" and one.answer == "AA"}
    found = {one.report.number: one.report.status for one in await lab.shown(only_final=True)}
    assert set(found) == signed and len(signed) == 12
    assert not sandbox.given_up
    corrected = {one.number for one in sandbox.ledger if one.status == "C"}
    assert {n for n, status in found.items() if status is ReportStatus.CORRECTED} == corrected
    assert await lab.waiting.one("select count(*) from intake_message where state = 'quarantined'") >= 2
    assert server.answered + server.refused == len(sandbox.ledger)


@pytest.mark.parametrize(("library", "charset"), [("simple-hl7", "utf-8"), ("medplum", "gb18030")])
async def test_somebody_elses_sender_delivers(lab: Lab, library: str, charset: str) -> None:
    """npm's simple-hl7 and @medplum/hl7: tests/peers."""
    declared = "UNICODE UTF-8" if charset == "utf-8" else "GB 18030-2000"
    raws = [oru(str(n), number=f"L{n}", charset=declared) for n in range(1, 5)]
    raws[2] = oru("3", number="L3", status="Z", charset=declared)
    async with listening(lab) as server:
        told = await peer_sends(library, server.port, raws, charset)
    assert [one.split("MSA|")[1][:2] for one in told] == ["AA", "AA", "AE", "AA"]
    assert {one.report.number for one in await lab.shown()} == {"L1", "L2", "L4"}
    assert (await lab.shown())[0].report.title == "葡萄糖测定"


async def test_a_document_of_four_mebibytes_comes_through(lab: Lab) -> None:
    content = bytes(range(256)) * 4096 * 4
    pdf = base64.b64encode(content).decode()
    raw = oru(obx=(f"ED|PDF^报告单||LIS^application^PDF^Base64^{pdf}",)).encode()
    too_large = base64.b64encode(content + b"more than that").decode()
    async with listening(lab) as server:
        client = Client(Peer("127.0.0.1", server.port, connections=1, answer_seconds_max=60))
        answers: list[Message] = [await client.send(raw, "1")]
        over = oru("2", number="L2", obx=(f"ED|PDF^报告单||LIS^application^PDF^Base64^{too_large}",))
        answers.append(await client.send(over.encode(), "2"))
        answers.append(await client.send(oru("3", number="L3").encode(), "3"))
        await client.close()
    assert [one.first("MSA").text(1) for one in answers] == ["AA", "AE", "AA"]
    (version,) = await lab.versions()
    assert version.sizes == (4 * 1024 * 1024,)


async def test_two_messages_of_a_report_at_once_make_two_versions(lab: Lab) -> None:
    raws = [oru(str(n), status="C", minutes=n, obx=(f"NM|GLU^葡萄糖||5.{n}|mmol/L||N",)) for n in range(1, 7)]
    told = await asyncio.gather(*(lab.hl7(raw.encode()) for raw in raws))
    assert {code for code, _ in told} == {"AA"}
    assert [one.version for one in await lab.versions()] == [1, 2, 3, 4, 5, 6]
    assert (await lab.shown())[0].report.observations[0].value == "5.6"


@pytest.mark.parametrize(("peers", "is_taken"), [("", True), ("10.9.0.0/16", False)])
async def test_the_process_beside_the_laboratory_listens(original: str, peers: str, is_taken: bool) -> None:
    """As web/sync makes it, from settings."""
    async with copied(original) as url, AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = Settings(home=home, database_url=url, lis_mllp_port=free_port(), lis_peers=peers)
        config = SyncConfig(settings, systems_from(settings), url, b"s" * 32, None)
        async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
            await pool.execute("insert into hospital (name, timezone) values ('h', 'Asia/Shanghai')")
        assert "lis" in systems_of(config.systems)

        async def nowhere(shard: int, packed: bytes) -> bytes:
            raise AssertionError("a report asks no actor")

        app = await opened("lis", config, Directory(nowhere, 1), CollectorRegistry())
        stack.push_async_callback(app.close)
        await add_person(app.pool, app.vault, PATIENT, name=NAME)
        running = asyncio.create_task(MAKERS["lis"](app).run())
        stack.callback(running.cancel)
        client = Client(Peer("127.0.0.1", settings.lis_mllp_port, answer_seconds_max=20))
        stack.push_async_callback(client.close)
        while True:
            try:
                answer = (await client.send(oru().encode(), "1")).first("MSA").text(1)
                break
            except TryAgain:  # it does not listen yet
                assert not running.done()
            except OutcomeUnknown:
                answer = ""
                break
        assert answer == ("AA" if is_taken else "")
        assert await app.pool.fetchval("select count(*) from report") == int(is_taken)
