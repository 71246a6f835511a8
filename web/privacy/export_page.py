"""The same copy of one's data as a page for people: tables, to be read and printed."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import fields
from datetime import datetime, tzinfo
from html import escape
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from engine.records import personal_export as records
from web import keys
from web.errors import language_of
from web.faults import Fault, Language, Text
from web.openapi import api
from web.privacy.export import pages_of, sent

TITLE: Final = Text("我的数据", "My data")
TITLES: Final[Mapping[str, Text]] = {
    "account": Text("账号", "Account"),
    "people": Text("就诊人", "People"),
    "appointments": Text("预约", "Appointments"),
    "bills": Text("账单、支付与退款", "Bills, payments and refunds"),
    "tickets": Text("候诊", "Tickets"),
    "vitals": Text("体征", "Vitals"),
    "reports": Text("检验报告", "Reports of laboratories"),
    "numbers": Text("在其他系统的编号", "Numbers in other systems"),
    "imaging": Text("影像检查", "Examinations with pictures"),
    "clinical": Text("就诊、诊断、用药、过敏", "Visits, diagnoses, medicines, allergies"),
    "wishes": Text("候补", "Wishes"),
    "penalties": Text("处罚与申诉", "Penalties and appeals"),
    "consents": Text("同意与撤回", "Consents"),
    "delegations": Text("代办申请", "Delegations"),
    "sessions": Text("登录会话", "Sessions"),
    "notices": Text("提醒", "Notices"),
    "ways": Text("路程", "Ways"),
    "calls": Text("电话回访", "Calls"),
    "looks": Text("名单查看", "Looks at calling lists"),
    "accesses": Text("谁查阅过我的信息", "Who has read my data"),
    "corrections": Text("更正", "Corrections"),
    "erasures": Text("删除", "Erasures"),
}
NOTHING: Final = Text("无", "none")


@api.route(
    "GET",
    "/api/v1/account/export/page",
    zh="导出我的全部数据（可读网页）",
    tags=["privacy"],
    errors=[Fault.EXPORT_BUSY, Fault.DATABASE_DOWN],
)
async def export_account_page(request: web.Request, *, account_id: bytes) -> web.StreamResponse:
    """The export as one HTML page without scripts, to be read; programs take /api/v1/account/export."""
    return await sent(request, account_id, "text/html; charset=utf-8", "html", _page)


async def _page(
    request: web.Request, whose: records.Whose, account: records.OwnAccount, now: datetime
) -> AsyncIterator[bytes]:
    language = language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE))
    zone = request.app[keys.ZONE]
    title = escape(TITLE.in_(language))
    yield (
        f'<!doctype html>\n<html lang="{"zh-CN" if language == "zh" else "en"}">\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n<h1>{title}</h1>\n<p>{_shown(now, zone)}</p>\n"
    ).encode()
    yield (_head("account", records.OwnAccount, language) + _row(account, zone) + "</table>\n").encode()
    for section in records.SECTIONS:
        is_empty = True
        async for page in pages_of(request, section, whose):
            head = _head(section.name, type(page[0]), language) if is_empty else ""
            is_empty = False
            yield (head + "".join(_row(one, zone) for one in page)).encode()
        end = f"{_heading(section.name, language)}<p>{NOTHING.in_(language)}</p>" if is_empty else "</table>"
        yield f"{end}\n".encode()
    yield b"</html>\n"


def _heading(section: str, language: Language) -> str:
    return f"<h2>{escape(TITLES[section].in_(language))}</h2>\n"


def _head(section: str, kind: type[Any], language: Language) -> str:
    names = "".join(f"<th>{escape(field.name)}</th>" for field in fields(kind))
    return f'{_heading(section, language)}<table border="1">\n<tr>{names}</tr>\n'


def _row(one: Any, zone: tzinfo) -> str:
    cells = "".join(f"<td>{_shown(getattr(one, field.name), zone)}</td>" for field in fields(one))
    return f"<tr>{cells}</tr>\n"


def _shown(value: Any, zone: tzinfo) -> str:
    """Whatever a patient or the staff wrote is text here, never markup."""
    match value:
        case None:
            return ""
        case datetime():
            return f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S}"
        case list() | dict():
            return escape(orjson.dumps(value).decode()) if value else ""
        case _:
            return escape(str(value))
