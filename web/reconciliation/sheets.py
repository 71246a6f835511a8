"""A settlement as a sheet, in Chinese, as books here are: CSV for spreadsheets, a page that prints on A4."""

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from html import escape
from typing import Final

from engine.domain.money import plain_yuan
from engine.records.settlement import Adjustment, Channel, Settlement
from web.auditors.export import cell
from web.reconciliation import words

_MILLIFEN: Final = 1000
_MARK: Final = "\ufeff"  # by which spreadsheets know UTF-8
_HEADER: Final = (
    *("日期", "类别", "渠道", "收款笔数", "收款金额（元）", "其中暂收（元）", "退款笔数", "退款金额（元）"),
    *("净额（元）", "手续费（元）", "归属日"),
)
_NONE: Final = "未出账"


def signed_yuan(fen: int) -> str:
    return f"-{plain_yuan(-fen)}" if fen < 0 else plain_yuan(fen)


def grouped(fen: int) -> str:
    """In yuan for people, by thousands: -123,456.78."""
    whole, part = divmod(abs(fen), 100)
    return f"{'-' if fen < 0 else ''}{whole:,}.{part:02d}"


def fee_text(millifen: int) -> str:
    """In yuan, with all five decimals: rates make parts of a fen."""
    sign = "-" if millifen < 0 else ""
    return f"{sign}{abs(millifen) // 100_000}.{abs(millifen) % 100_000:05d}"


def fee_fen(millifen: int) -> str:
    """In fen, with three decimals."""
    sign = "-" if millifen < 0 else ""
    return f"{sign}{abs(millifen) // _MILLIFEN}.{abs(millifen) % _MILLIFEN:03d}"


def as_csv(one: Settlement) -> str:
    """Amounts may be negative numbers; everything else is text that no spreadsheet takes for a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_HEADER)
    day = one.figures.day.isoformat()
    for channel in one.figures.channels:
        writer.writerow(
            [
                day,
                "渠道",
                cell(words.channel(channel.name)),
                channel.payments,
                plain_yuan(channel.payments_fen),
                plain_yuan(channel.suspense_fen),
                channel.refunds,
                plain_yuan(channel.refunds_fen),
                signed_yuan(channel.net_fen),
                _fee(channel),
                day,
            ]
        )
    total = _total(one.figures.channels)
    writer.writerow(
        [
            *(
                day,
                "合计",
                "",
                total.payments,
                plain_yuan(total.payments_fen),
                plain_yuan(total.suspense_fen),
            ),
            *(total.refunds, plain_yuan(total.refunds_fen), signed_yuan(total.net_fen)),
            *(_fee(total), day),
        ]
    )
    for name, came in (("调整", one.came), ("关账后调整", one.later)):
        for more in came:
            writer.writerow(
                [
                    *(more.day.isoformat(), name, cell(words.channel(more.channel))),
                    *(more.payments, signed_yuan(more.payments_fen), "", more.refunds),
                    *(signed_yuan(more.refunds_fen), signed_yuan(more.payments_fen - more.refunds_fen)),
                    *(fee_text(more.fee_millifen), more.of_day.isoformat()),
                ]
            )
    balances = one.figures.balances
    for kind in one.figures.revenue:
        writer.writerow(
            [
                *(day, "收入", cell(words.revenue(kind.kind)), "", plain_yuan(kind.earned_fen), "", ""),
                *(
                    plain_yuan(kind.given_back_fen),
                    signed_yuan(kind.earned_fen - kind.given_back_fen),
                    "",
                    day,
                ),
            ]
        )
    for name, fen in (
        ("日终已付待取号", balances.patient_fen),
        ("日终暂收", balances.suspense_fen),
        ("日终应退未退", balances.owed_back_fen),
    ):
        writer.writerow([day, "余额", name, "", "", "", "", "", signed_yuan(fen), "", day])
    return _MARK + out.getvalue()


def _fee(channel: Channel) -> str:
    return fee_text(channel.fee_millifen) if channel.has_statement else _NONE


def _total(channels: Iterable[Channel]) -> Channel:
    found = Channel("")
    for one in channels:
        found = Channel(
            "",
            found.payments + one.payments,
            found.payments_fen + one.payments_fen,
            found.suspense_fen + one.suspense_fen,
            found.refunds + one.refunds,
            found.refunds_fen + one.refunds_fen,
            found.fee_millifen + one.fee_millifen,
            found.has_statement and one.has_statement,
        )
    return found


# The page.

STYLE: Final = """
@page { size: A4; margin: 12mm 14mm }
* { box-sizing: border-box }
body { font: 13px/1.45 "Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC", sans-serif;
       color: #111; max-width: 180mm; margin: 12mm auto; padding: 0 4mm }
h1 { font-size: 21px; text-align: center; margin: 0 0 2mm }
h2 { font-size: 14px; margin: 5mm 0 1.5mm; break-after: avoid }
.sub { text-align: center; color: #444; margin: 0 0 4mm }
table { width: 100%; border-collapse: collapse; break-inside: auto }
tr { break-inside: avoid }
thead { display: table-header-group }
th, td { border: 1px solid #555; padding: 0.8mm 2mm }
th { background: #eee; font-weight: 600; text-align: center }
td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td:first-child { text-align: left; white-space: normal }
tr.sum td { font-weight: 700 }
.note { color: #444; font-size: 12px }
.warn { border: 1px solid #a40; color: #a40; padding: 2mm 3mm; margin: 4mm 0 }
.signs { display: flex; justify-content: space-between; margin-top: 10mm; break-inside: avoid }
@media print { body { margin: 0; padding: 0; max-width: none } th { -webkit-print-color-adjust: exact } }
"""
POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the page: its own style, and nothing else."""


def as_page(one: Settlement, hospital: str, printed_at: datetime, zone: tzinfo) -> str:
    figures = one.figures
    closed = "未关账（数字仍会变化）"
    if one.closed is not None:
        closed = f"已于 {_shown(one.closed.at, zone)} 由 {escape(one.closed.by)} 关账"
    body = [
        f"<h1>{escape(hospital)} 收费日结单</h1>",
        f'<p class="sub">{figures.day.isoformat()} · {closed}</p>',
        *_warnings(one),
        "<h2>一、收退款（按渠道）</h2>",
        _table(
            ("渠道", "收款笔数", "收款金额", "其中暂收", "退款笔数", "退款金额", "净额", "手续费"),
            [*map(_channel_cells, figures.channels)],
            _channel_cells(_total(figures.channels), "合计"),
        ),
        "<h2>二、收入（按类别）</h2>",
        _table(
            ("类别", "确认收入", "退回", "净额"),
            [
                (
                    words.revenue(kind.kind),
                    grouped(kind.earned_fen),
                    grouped(kind.given_back_fen),
                    grouped(kind.earned_fen - kind.given_back_fen),
                )
                for kind in figures.revenue
            ],
            (
                "合计",
                grouped(sum(kind.earned_fen for kind in figures.revenue)),
                grouped(sum(kind.given_back_fen for kind in figures.revenue)),
                grouped(sum(kind.earned_fen - kind.given_back_fen for kind in figures.revenue)),
            ),
        ),
        "<h2>三、日终余额</h2>",
        _table(
            ("项目", "金额"),
            [
                ("患者已付、号源处理中", grouped(figures.balances.patient_fen)),
                ("暂收（不属于任何账单的款项）", grouped(figures.balances.suspense_fen)),
                ("应退未退", grouped(figures.balances.owed_back_fen)),
            ],
        ),
    ]
    if one.came:
        body += ["<h2>四、本日发生的以前各日调整</h2>", _adjustments(one.came, "归属日", "of_day")]
    if one.later:
        body += [
            "<h2>附、关账后对本日的调整</h2>",
            '<p class="note">计入其发生日，上列数字不变。</p>',
            _adjustments(one.later, "发生日", "day"),
        ]
    if one.closed is not None and one.closed.note:
        body.append(f"<p>备注：{escape(one.closed.note)}</p>")
    body += [
        '<div class="signs"><span>制单：________________</span><span>复核：________________</span>'
        "<span>财务：________________</span></div>",
        '<p class="note">单位：元（人民币）。手续费以支付机构账单为准。'
        f"打印时间 {_shown(printed_at, zone)}。</p>",
    ]
    return (
        '<!doctype html>\n<html lang="zh-CN">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>日结 {figures.day.isoformat()}</title>\n<style>{STYLE}</style>\n"
        + "\n".join(body)
        + "\n</html>\n"
    )


def _warnings(one: Settlement) -> Iterable[str]:
    figures = one.figures
    told = []
    if figures.open_differences:
        told.append(f"有 {figures.open_differences} 笔对账差异尚未处理")
    if figures.not_compared:
        told.append(f"尚未完成对账：{'、'.join(map(words.channel, figures.not_compared))}")
    if told:
        yield f'<p class="warn">{escape("；".join(told))}。</p>'


def _channel_cells(one: Channel, name: str = "") -> Sequence[str]:
    return (
        name or words.channel(one.name),
        f"{one.payments:,}",
        grouped(one.payments_fen),
        grouped(one.suspense_fen),
        f"{one.refunds:,}",
        grouped(one.refunds_fen),
        grouped(one.net_fen),
        _fee(one),
    )


def _adjustments(found: Iterable[Adjustment], title: str, name: str) -> str:
    return _table(
        (title, "渠道", "收款笔数", "收款金额", "退款笔数", "退款金额", "净额", "手续费"),
        [
            (
                getattr(one, name).isoformat(),
                words.channel(one.channel),
                str(one.payments),
                grouped(one.payments_fen),
                str(one.refunds),
                grouped(one.refunds_fen),
                grouped(one.payments_fen - one.refunds_fen),
                fee_text(one.fee_millifen),
            )
            for one in found
        ],
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str] = ()) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = [_row(row) for row in rows] or [f'<tr><td colspan="{len(names)}">无</td></tr>']
    if total:
        lines.append(_row(total, ' class="sum"'))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _row(cells: Sequence[str], marked: str = "") -> str:
    return f"<tr{marked}>{''.join(f'<td>{escape(text)}</td>' for text in cells)}</tr>"


def _shown(at: datetime, zone: tzinfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M}"
