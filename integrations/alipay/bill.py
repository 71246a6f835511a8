"""The bill of a day's trades (业务明细): a zip of CSV files in GB18030, in our words. Pure.

    #支付宝业务明细查询
    #账号：[2088…0156]                            the seller, and 0156 for yuan
    #起始日期：[…]   终止日期：[…]
    #-----…业务明细列表-----…
    支付宝交易号,商户订单号,业务类型,…            columns are found by their names
    2026…\t,X1\t,交易,…                          tabs keep spreadsheets from eating digits
    #-----…业务明细列表结束-----…
    #交易合计：2笔，商家实收共36.80元，…
    #退款合计：1笔，商家实收退款共-35.80元，…

A day with many trades comes as several such files; what else is in the zip (汇总) is not needed. Names of
payers (对方账户), goods and remarks are not read.
"""

import csv
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Final

from integrations.alipay.translate import fen_of, moment_of

FILES_MAX: Final = 64
BYTES_MAX: Final = 256 * 1024 * 1024  # unpacked, all files together

_TITLE: Final = "#支付宝业务明细查询"
_END: Final = "业务明细列表结束"
_ACCOUNT: Final = re.compile(r"#账号：\[([0-9]{16})(?:0156)?\]")
_TOTAL: Final = re.compile(r"#+(交易|退款)合计：([0-9]+)笔，商家实收(?:退款)?共(-?[0-9.]+)元")
_COLUMNS: Final = {
    "支付宝交易号": "trade_no",
    "商户订单号": "out_trade_no",
    "业务类型": "kind",
    "完成时间": "at",
    "订单金额": "amount",
    "商家实收": "received",
    "退款批次号/请求号": "out_request_no",
    "服务费": "fee",
}


class BrokenBill(Exception):
    """Cut short, or not a bill. Says nothing of what is in it."""


class Kind(Enum):
    PAID = "交易"
    REFUNDED = "退款"


@dataclass(frozen=True, slots=True)
class Row:
    kind: Kind
    trade_no: str
    out_trade_no: str
    out_request_no: str | None  # of a refund
    amount_fen: int  # of the order or the refund; never negative
    received_fen: int  # what reached our account, or left it; never negative
    fee_fen: int  # what they kept for it; negative where a refund gives some back
    at: int  # ms


@dataclass(frozen=True, slots=True)
class Bill:
    account: str  # the seller's id
    rows: tuple[Row, ...]
    others: int  # rows that are neither a payment nor a refund: for the cashier to look at
    doubts: tuple[str, ...]  # where rows and their own totals differ: for the cashier, too


def parsed(packed: bytes) -> Bill:
    """Raises BrokenBill: half a bill is none."""
    accounts: set[str] = set()
    rows: list[Row] = []
    doubts: list[str] = []
    others = 0
    for text in _texts(packed):
        account, found, strange, told = _file(text)
        accounts.add(account)
        rows += found
        others += strange
        doubts += _doubts(found, told)
    if len(accounts) != 1:
        raise BrokenBill("a bill of no account, or of several")
    return Bill(accounts.pop(), tuple(rows), others, tuple(doubts))


def _texts(packed: bytes) -> list[str]:
    """The files that hold rows. By what is in them: their names come in one encoding or another."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            entries = archive.infolist()
            if len(entries) > FILES_MAX or sum(entry.file_size for entry in entries) > BYTES_MAX:
                raise BrokenBill("a bill that is too long")
            # What a file says of its size is not what it holds; reading stops there all the same.
            contents = [archive.open(entry).read(entry.file_size) for entry in entries if not entry.is_dir()]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        raise BrokenBill("no zip") from None
    return [text for text in map(_decoded, contents) if text.startswith(_TITLE)]


def _decoded(raw: bytes) -> str:
    """'' where it is no text with a title that we know."""
    for encoding in ("gb18030", "utf-8-sig"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if text.startswith(_TITLE):
            return text
    return ""


def _file(text: str) -> tuple[str, list[Row], int, dict[Kind, tuple[int, int]]]:
    """The account, the rows, how many others, and what they say the totals are (number, fen)."""
    account, rows, others = "", [], 0
    told: dict[Kind, tuple[int, int]] = {}
    places: dict[str, int] | None = None
    is_over = False
    for whole in text.splitlines():
        line = whole.strip()
        if line.startswith("#"):
            named = _ACCOUNT.match(line)
            if named:
                account = named[1]
            is_over = is_over or _END in line
            total = _TOTAL.match(line)
            if total:
                told[Kind(total[1])] = (int(total[2]), abs(_fen(total[3])))
        elif not line or is_over:
            continue
        elif places is None:
            places = _places(_cells(line))
        else:
            row = _row(_cells(whole), places)
            if row is None:
                others += 1
            else:
                rows.append(row)
    if not account or places is None or not is_over:
        raise BrokenBill("a bill that is cut short")
    return account, rows, others, told


def _cells(line: str) -> list[str]:
    """Line by line: a quote that somebody has in his name swallows no rows."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        raise BrokenBill("a row that does not hold together") from None


def _places(header: list[str]) -> dict[str, int]:
    """Where each column is. Amounts are written 订单金额（元） or 订单金额(元)."""
    names = [re.split(r"[（(]", cell.strip())[0] for cell in header]
    found = {_COLUMNS[name]: place for place, name in enumerate(names) if name in _COLUMNS}
    if len(found) != len(_COLUMNS):
        raise BrokenBill("a bill with other columns")
    return found


def _row(cells: list[str], places: dict[str, int]) -> Row | None:
    """None: neither a payment nor a refund."""
    try:
        told = {name: cells[place].strip() for name, place in places.items()}
        if told["kind"] not in (Kind.PAID.value, Kind.REFUNDED.value):
            return None
        return Row(
            Kind(told["kind"]),
            told["trade_no"],
            told["out_trade_no"],
            told["out_request_no"] or None,
            abs(fen_of(told["amount"])),
            abs(fen_of(told["received"])),
            -fen_of(told["fee"] or "0"),
            moment_of(told["at"]),
        )
    except (IndexError, ValueError):
        raise BrokenBill("a row that does not hold together") from None


def _fen(text: str) -> int:
    try:
        return fen_of(text)
    except ValueError:
        raise BrokenBill("a total that is none") from None


def _doubts(rows: list[Row], told: dict[Kind, tuple[int, int]]) -> list[str]:
    doubts = []
    for kind, (number, fen) in told.items():
        found = [row.received_fen for row in rows if row.kind is kind]
        if (len(found), sum(found)) != (number, fen):
            doubts.append(
                f"{kind.value}: {len(found)} rows of {sum(found)} fen, their total {number} of {fen} fen"
            )
    return doubts
