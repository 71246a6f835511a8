"""HL7 v2 as text: what is written is read again, whatever it is; and nothing read breaks the reader."""

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import hl7
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from integrations.hl7v2 import ack
from integrations.hl7v2.escapes import escaped, unescaped
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Header, Message, compose, header_of, parse
from integrations.hl7v2.times import date_of, stamp, time_of

ENCODING = "|^~\\&"
AT = datetime(2026, 11, 23, 9, 30, tzinfo=ZoneInfo("Asia/Shanghai"))
CHARSETS = st.sampled_from(["utf-8", "gb18030"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    "|^~\\&\r\nFSTRE.X0D张𠮷", max_size=20
)


def header(charset: str = "utf-8", **more: str) -> Header:
    return Header(
        ("XINGLIN", "医院"), ("HIS", "H"), ("SIU", "S12", "SIU_S12"), "1-2-0", AT, charset=charset, **more
    )


def written(text: str, charset: str = "utf-8") -> bytes:
    return compose(header(charset), [("PID", {5: ((text,), text), 6: [text, (text, (text, text))]})])


@given(TEXTS, CHARSETS)
@example("\\X0D\\", "utf-8")
@example('""', "gb18030")
@example("\x85\u2028", "gb18030")
@example("亅|", "gb18030")
def test_any_text_comes_back_as_it_was(text: str, charset: str) -> None:
    pid = parse(written(text, charset)).first("PID")
    assert pid.text(5) == text
    assert pid.text(5, 2) == text
    assert pid.text(6) == text
    assert pid.text(6, 1, repetition=2) == text
    assert [pid.text(6, 2, sub=n, repetition=2) for n in (1, 2)] == [text, text]


@given(TEXTS, CHARSETS)
def test_no_text_ends_its_field_or_segment(text: str, charset: str) -> None:
    """Not even for a reader that splits lines wherever Python does."""
    raw = written(text, charset)
    whole = raw.decode(charset)
    assert len(whole.splitlines()) == 2
    assert whole.split("\r")[1].count("|") == 6
    assert not re.search(rb"[\x00-\x0c\x0e-\x1f]", raw)


@given(TEXTS)
def test_somebody_elses_parser_finds_the_same_fields(text: str) -> None:
    """PyPI's hl7, which knows nothing of ours."""
    rows = [("PID", {5: (text, "after"), 7: "end"})]
    theirs = hl7.parse(compose(header(), rows).decode())
    assert [str(one[0][0]) for one in theirs] == ["MSH", "PID"]
    name = theirs.segment("PID")[5][0]
    assert [unescaped(str(part), ENCODING, "utf-8") for part in name] == [text, "after"]


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: b"MSH|^~\\&|" + tail))
def test_any_bytes_are_a_message_or_malformed(raw: bytes) -> None:
    try:
        message = parse(raw)
    except Malformed as malformed:
        answer = ack.refusal(raw, "AR", ack.trouble_of(malformed))
        assert parse(answer).first("MSA").text(1) == "AR"
        return
    for segment in message.segments:
        for field in range(len(segment.fields)):
            try:
                segment.text(field)
                segment.plain(field)
            except Malformed:
                continue
    assert parse(ack.ack(message, "AA")).first("MSA").text(2) == message.control_id


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b"", "segment 1"),
        (b"PID|1\r", "segment 1"),
        (b"BHS|^~\\&|a\rMSH|^~\\&|a\r", "segment 1"),
        (b"MSH", "MSH-2"),
        (b"MSH|^~|a", "MSH-2"),
        (b"MSH|^^\\&|a", "MSH-2"),
        (b"MSHA^~\\&A", "MSH-2"),
        (b"MSH|^~\\&|||||||ADT^A04\r", "MSH-10"),
        (b"MSH|^~\\&|||||||ADT^A04|a b\r", "MSH-10"),
        (b"MSH|^~\\&||||||||7\r", "MSH-9"),
        (b"MSH|^~\\&|||||||ADT^A04|7\rpid|1\r", "segment 2"),
        (b"MSH|^~\\&|||||||ADT^A04|7\rMSH|^~\\&|\r", "segment 2"),
        (b"MSH|^~\\&|||||||ADT^A04|7\rNTE|1||a\nOBX|2\r", "message"),
        (b"MSH|^~\\&|||||||ADT^A04|7||||||||KOI8\r", "MSH-18"),
        (b"MSH|^~\\&|||||||ADT^A04|7||||||||UNICODE UTF-8\rPID|||||\xd5\xc5\r", "MSH-18"),
        (b"MSH|^~\\&|\xd5\xc5||||||ADT^A04|7\r", "MSH-18"),
        (b"MSH|^~\\&|||||||ADT^A04|7\rPID" + b"|" * 500 + b"\r", "PID"),
        (b"MSH|^~\\&|||||||ADT^A04|7\r" + b"NTE|1\r" * 20_001, "segment 20001"),
    ],
)
def test_what_is_malformed_is_named_by_its_place(raw: bytes, where: str) -> None:
    with pytest.raises(Malformed) as malformed:
        parse(raw)
    assert malformed.value.where == where


def test_gb18030_is_decoded_before_anything_is_split() -> None:
    """亅 is 81 7C in GB18030: its second byte is the field separator."""
    name = "亅亊\\俓"
    assert b"|" in "亅".encode("gb18030")
    raw = f"MSH|^~\\&|HIS{name[0]}||||||ADT^A04|7||||||||GB 18030-2000\rPID|||||亅丂\r".encode("gb18030")
    message = parse(raw)
    assert message.sending[0] == "HIS亅"
    assert message.first("PID").text(5) == "亅丂"
    assert message.charset == "gb18030"
    unsaid = raw.replace(b"GB 18030-2000", b"")
    assert parse(unsaid, "gb18030").first("PID").text(5) == "亅丂"


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_line_ends_that_vendors_use(end: str) -> None:
    raw = end.join(["MSH|^~\\&|||||||ADT^A04|7", "PID|1", "NTE|1", "", ""]).encode()
    assert [one.name for one in parse(raw).segments] == ["MSH", "PID", "NTE"]


def test_separators_of_their_own() -> None:
    raw = b"MSH#*:!%#a######ADT*A04#7\rPID###1*2:3*4##x%y*!F!!S!!T!!R!!E!\r"
    pid = parse(raw).first("PID")
    assert (pid.text(3, 2), pid.text(3, 2, repetition=2), pid.count(3)) == ("2", "4", 2)
    assert (pid.text(5, 1, 2), pid.text(5, 2)) == ("y", "#*%:!")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (r"a\.br\b", "a\nb"),
        (r"\H\hot\N\ ", "hot "),
        (r"C:\lab\x", r"C:\lab\x"),
        (r"5\ ", "5\\ "),
        (r"a\Zx\b\F\c", r"a\Zx\b|c"),
        (r"\X4142\ ", "AB "),
        ("", ""),
    ],
)
def test_escapes_that_are_known_and_those_that_are_not(said: str, meant: str) -> None:
    assert unescaped(said, ENCODING, "utf-8") == meant


def test_hexadecimal_bytes_that_are_no_text() -> None:
    with pytest.raises(Malformed):
        unescaped("\\XFF\\", ENCODING, "utf-8", "PID-5.1")
    assert escaped('""', "utf-8") != '""'


def test_a_field_that_says_none() -> None:
    pid = parse(b'MSH|^~\\&|||||||ADT^A04|7\rPID|||||""|x\r').first("PID")
    assert (pid.text(5), pid.is_null(5), pid.is_null(6)) == ("", True, False)


def test_groups_have_the_header_and_their_own() -> None:
    raw = b"MSH|^~\\&|||||||ORU^R01|7\rPID|1\rOBR|1\rOBX|1\rOBX|2\rOBR|2\rOBX|3\r"
    groups = parse(raw).groups("OBR")
    assert [[one.name for one in group.segments] for group in groups] == [
        ["MSH", "OBR", "OBX", "OBX"],
        ["MSH", "OBR", "OBX"],
    ]
    assert parse(raw).groups("SCH") == []


def test_what_no_charset_has_letters_for_is_not_written() -> None:
    with pytest.raises(ValueError):
        compose(header("ascii"), [("PID", {5: "张"})])
    with pytest.raises(ValueError):
        compose(header(), [("PID\r", {5: "x"})])


@given(
    st.datetimes(AT.replace(year=1900, tzinfo=None), AT.replace(year=2999, tzinfo=None)), st.integers(-12, 14)
)
def test_times_come_back(at: datetime, hours: int) -> None:
    there = at.replace(microsecond=0, tzinfo=timezone(timedelta(hours=hours)))
    assert time_of(stamp(there), UTC) == there


@pytest.mark.parametrize(
    "said", ["", "20261", "20261301", "2026-11-23", "20261123256000", "20261123+99999", "２０２６"]
)
def test_times_that_are_none(said: str) -> None:
    with pytest.raises(Malformed):
        time_of(said, UTC)


def test_a_time_without_a_zone_is_the_hospitals() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    assert time_of("202611230930", zone) == AT
    assert time_of("20261123013000.25+0000", zone) == AT.replace(microsecond=250_000)
    assert date_of("20261123233000-0800").isoformat() == "2026-11-23"


def wants(accept: str, application: str) -> Message:
    return parse(compose(header(accept=accept, application=application), []))


@pytest.mark.parametrize(
    ("accept", "application", "code", "said"),
    [
        ("", "", "AA", ["AA"]),
        ("", "", "AE", ["AE"]),
        ("AL", "NE", "AA", ["CA"]),
        ("AL", "AL", "AA", ["CA", "AA"]),
        ("NE", "AL", "AR", ["AR"]),
        ("ER", "ER", "AA", []),
        ("ER", "ER", "AE", ["CE", "AE"]),
        ("SU", "NE", "AE", []),
        ("SU", "NE", "AA", ["CA"]),
        ("NE", "NE", "AE", []),
    ],
)
def test_answers_that_are_wanted(accept: str, application: str, code: str, said: list[str]) -> None:
    answers = ack.answers(wants(accept, application), code)
    assert [parse(one).first("MSA").text(1) for one in answers] == said


def test_a_refusal_says_where_and_goes_back_to_its_sender() -> None:
    raw = b"MSH|^~\\&|LAB|L1|XINGLIN|X|2026||ORU^R01|no 7|P|2.4\rPID|x\r"
    with pytest.raises(Malformed) as malformed:
        parse(raw)
    answer = parse(ack.refusal(raw, "AR", ack.trouble_of(malformed.value)))
    assert answer.receiving == ("LAB", "L1")
    assert answer.version == "2.4"
    err = answer.first("ERR")
    assert (err.text(2), err.text(2, 3), err.text(3)) == ("MSH", "10", "101")
    assert header_of(b"\xff\xfe") is None
