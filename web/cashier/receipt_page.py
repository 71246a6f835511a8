"""A receipt to be printed on A5: what was paid for, how much in figures and in capitals, how, and what went
back. It is no tax invoice (发票), and says so."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final

from aiohttp import web

from engine.domain.ledger import of_provider
from engine.domain.money import capitals, plain_yuan
from engine.domain.payment import AT_HOSPITAL, Refunding
from engine.domain.price_rules import Kind
from engine.domain.refusal import Reason
from engine.records import appointments, bills, cash
from engine.records.bills import BillRow, PaymentRow, RefundRow
from engine.records.day_people import patient_names
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.bills import words
from web.cashier.reach import bill_in_reach
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import IdPath

PROVIDERS: Final = {AT_HOSPITAL: "现金（窗口）", "wechat_pay": "微信支付", "alipay": "支付宝"}

STYLE: Final = """
@page { size: A5 landscape; margin: 9mm; }
body { font: 10.5pt/1.45 "Noto Serif CJK SC", "Source Han Serif SC", SimSun, serif; }
body { margin: 0 auto; max-width: 190mm; }
h1 { font-size: 15pt; letter-spacing: .3em; margin: 0; text-align: center; }
h2 { font-size: 11pt; font-weight: normal; margin: 0 0 2mm; text-align: center; }
p { display: flex; justify-content: space-between; margin: .6mm 0; }
table { border-collapse: collapse; margin: 1.5mm 0; width: 100%; }
th, td { border: .25mm solid #000; font-weight: normal; padding: .7mm 1.5mm; text-align: left; }
td.fen, th.fen { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.total { font-size: 12pt; font-weight: bold; }
small { display: block; margin-top: 2mm; font-size: 8.5pt; }
""".strip()
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Paper:
    """What is printed."""

    hospital: str
    number: str
    row: BillRow
    payment: PaymentRow
    refunds: tuple[RefundRow, ...]
    patient: str
    visit: tuple[str, ...]
    items: tuple[tuple[str, str, int, int], ...]  # what, of what line, how many, fen
    cashier: str
    paid_at: datetime
    printed_at: datetime
    printed_by: str


@api.route(
    "GET",
    "/api/v1/cashier/bills/{id}/receipt",
    zh="打印收据",
    tags=["cashier"],
    errors=[Fault.NO_SUCH_BILL, Reason.WRONG_BILL_STATE, Fault.DATABASE_DOWN],
)
async def print_receipt(request: web.Request, *, staff: Staff, path: IdPath) -> web.Response:
    """The receipt of a paid bill as a page for A5, in Chinese. No invoice. Every print is noted."""
    app = request.app
    row = await bill_in_reach(app, staff, path.id.bytes)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        payments = [one for one in await bills.payments_of(connection, row.id) if one.id == row.paid_by]
        if not payments:
            raise Problem(Reason.WRONG_BILL_STATE)
        (payment,) = payments
        refunds = [one for one in await bills.refunds_of(connection, row.id) if one.payment_id == payment.id]
        names = await patient_names(connection, app[keys.VAULT], [row.patient_id])
        cashier = await cash.who_took(connection, payment.id) or "—"
        await audited(
            request, connection, "receipt_read", subjects=(row.patient_id,), object=("bill", uuid(row.id))
        )
    zone, now = app[keys.ZONE], datetime.now(app[keys.ZONE])
    paper = Paper(
        hospital=app[keys.AVAILABILITY].catalog.hospital.name,
        number=payment.transaction_id,
        row=row,
        payment=payment,
        refunds=tuple(refunds),
        patient=names.get(row.patient_id, ""),
        visit=await _visit(app, row),
        items=tuple(_items(app, row)),
        cashier=cashier,
        paid_at=(payment.paid_at or payment.since).astimezone(zone),
        printed_at=now,
        printed_by=staff.name,
    )
    return web.Response(
        text=page(paper),
        content_type="text/html",
        headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"},
    )


async def _visit(app: web.Application, row: BillRow) -> tuple[str, ...]:
    """Department, practitioner and time, as far as there is a number."""
    if row.appointment_id is None:
        return ()
    found = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], row.appointment_id)
    if found is None:
        return ()
    catalog = app[keys.AVAILABILITY].catalog
    department = catalog.departments.get(found.department_id)
    practitioner = catalog.practitioners.get(found.schedule_id.rpartition("-")[0])
    start = found.starts_at.astimezone(app[keys.ZONE])
    return (
        "" if department is None else department.name,
        "" if practitioner is None else practitioner.name,
        f"{start:%Y-%m-%d %H:%M} 第 {found.number} 号",
    )


def _items(app: web.Application, row: BillRow) -> Iterator[tuple[str, str, int, int]]:
    """Of drugs and examinations the kind and the code: what they are called is not for every desk."""
    classes = app[keys.AVAILABILITY].catalog.number_classes
    for line in row.lines:
        kind = words.KINDS[line.kind].zh if line.kind in words.KINDS else line.kind
        known = classes.get(line.item) if line.kind == Kind.REGISTRATION else None
        yield kind, line.item if known is None else known.name, line.quantity, line.fen
    for one in row.discounts:
        rule = words.RULES[one.rule].zh if one.rule in words.RULES else one.rule
        yield rule, one.name, 1, -one.fen


def page(paper: Paper) -> str:
    """The whole document. Whatever is in it is text, never markup."""
    row, payment = paper.row, paper.payment
    back = [one for one in paper.refunds if one.state == Refunding.DONE]
    open_ = sum(one.fen for one in paper.refunds) - sum(one.fen for one in back)
    lines = [
        "<!doctype html>",
        '<html lang="zh-CN"><head><meta charset="utf-8">',
        f"<title>收据 {_text(paper.number)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{_text(paper.hospital)}</h1><h2>收费收据</h2>",
        _pair(f"收据号：{paper.number}", f"收款时间：{paper.paid_at:%Y-%m-%d %H:%M:%S}"),
        _pair(f"患者：{paper.patient}", f"账单号：{uuid(row.id)}"),
    ]
    if paper.visit:
        lines.append(_pair(*(f"{name}：{said}" for name, said in zip(_VISIT, paper.visit, strict=True))))
    lines += [
        '<table><thead><tr><th>项目</th><th>名称</th><th class="fen">数量</th>'
        '<th class="fen">金额（元）</th></tr></thead>',
        *(
            f"<tr><td>{_text(what)}</td><td>{_text(name)}</td>"
            f'<td class="fen">{count}</td><td class="fen">{_signed(fen)}</td></tr>'
            for what, name, count, fen in paper.items
        ),
        "</table>",
        f'<p class="total"><span>合计（大写）：{capitals(row.fen)}</span>'
        f"<span>¥{plain_yuan(row.fen)}</span></p>",
        _pair(
            f"支付方式：{PROVIDERS.get(payment.provider, of_provider(payment.provider))}",
            f"收款人：{paper.cashier}",
            f"打印：{paper.printed_by} {paper.printed_at:%Y-%m-%d %H:%M}",
        ),
    ]
    for one in back:
        lines.append(
            _pair(
                f"已退款：¥{plain_yuan(one.fen)}（{capitals(one.fen)}）",
                f"{PROVIDERS.get(one.provider, one.provider)} {one.reference}",
            )
        )
    if open_:
        lines.append(_pair(f"退款处理中：¥{plain_yuan(open_)}"))
    lines += [f"<small>{_NOTICE}</small>", "</body></html>", ""]
    return "\n".join(lines)


_VISIT: Final = ("科室", "医生", "就诊时间")
_NOTICE: Final = (
    "本收据仅证明本院已收到上述款项，不是发票，不能用于报销或抵税；需要医疗收费票据的，请向收费处另行索取。"
)


def _pair(*said: str) -> str:
    return "<p>" + "".join(f"<span>{_text(one)}</span>" for one in said) + "</p>"


def _signed(fen: int) -> str:
    return f"-{plain_yuan(-fen)}" if fen < 0 else plain_yuan(fen)


def _text(said: str) -> str:
    return escape(said)
