"""A day's bill as Alipay packs it: GB18030 in a zip, tabs, totals; and what is cut short or lies."""

import io
import struct
import zipfile

import pytest

from integrations.alipay.bill import Bill, BrokenBill, Kind, Row, parsed
from integrations.alipay.sandbox import Entry, packed
from integrations.alipay.translate import moment_of
from tests.support.alipay import SELLER_ID

HEADER = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额{0},"
    "商家实收{0},支付宝红包{0},集分宝{0},支付宝优惠{0},商家优惠{0},券核销金额{0},券名称,商家红包消费金额{0},卡消费金额{0},"
    "退款批次号/请求号,服务费{0},分润{0},备注"
)
AT = "2026-10-03 10:00:30"


def line(
    trade: str, order: str, kind: str, amount: str, request: str = "", fee: str = "-0.22", name: str = "**林"
) -> str:
    return (
        f"{trade}\t,{order}\t,{kind}\t,挂号,2026-10-03 10:00:00,{AT},\t,\t,\t,\t,{name},{amount},{amount},"
        f"0.00,0.00,0.00,0.00,0.00,,0.00\t,0.00,{request}\t,{fee},0.00,"
    )


PAID = line("2026100322001400000000000001", "X1", "交易", "35.80")
BACK = line("2026100322001400000000000001", "X1", "退款", "-5.80", "R1", "0.03")
TOTALS = (
    "#交易合计：1笔，商家实收共35.80元，商家优惠共0.00元",
    "#退款合计：1笔，商家实收退款共-5.80元，商家优惠退款共0.00元",
)


def text_of(*rows: str, header: str = HEADER.format("（元）"), totals: tuple[str, ...] = TOTALS) -> str:
    return "\r\n".join(
        [
            "#支付宝业务明细查询",
            f"#账号：[{SELLER_ID}0156]",
            "#起始日期：[2026年10月03日 00:00:00]   终止日期：[2026年10月04日 00:00:00]",
            "#-----------------------------------------业务明细列表----------------------------------------",
            header,
            *rows,
            "#-----------------------------------------业务明细列表结束------------------------------------",
            *totals,
            "#导出时间：[2026年10月04日 09:12:07]",
        ]
    )


def zipped(*texts: str, encoding: str = "gb18030") -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, text in enumerate(texts):
            archive.writestr(f"{n}.csv", text.encode(encoding))
        archive.writestr("汇总.csv", "#支付宝业务汇总查询\r\n".encode(encoding))
    return found.getvalue()


def test_rows_are_fen():
    bill = parsed(zipped(text_of(PAID, BACK)))
    at, trade = moment_of(AT), "2026100322001400000000000001"
    assert bill == Bill(
        SELLER_ID,
        (
            Row(Kind.PAID, trade, "X1", None, 3580, 3580, 22, at),
            Row(Kind.REFUNDED, trade, "X1", "R1", 580, 580, -3, at),
        ),
        0,
        (),
    )
    assert "林" not in repr(bill)


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("money", ["（元）", "(元)"])
def test_ways_to_write_it(encoding: str, money: str):
    bill = parsed(zipped(text_of(PAID, BACK, header=HEADER.format(money)), encoding=encoding))
    assert [row.amount_fen for row in bill.rows] == [3580, 580] and not bill.doubts


def test_columns_are_found_by_name():
    assert parsed(zipped(text_of(PAID, BACK))).rows
    moved = text_of(f"新,{PAID}", f"新,{BACK}", header=f"新列,{HEADER.format('（元）')}")
    assert parsed(zipped(moved)).rows == parsed(zipped(text_of(PAID, BACK))).rows


def test_a_long_day_comes_in_several_files():
    one, other = text_of(PAID, totals=TOTALS[:1]), text_of(BACK, totals=TOTALS[1:])
    bill = parsed(zipped(one, other))
    assert [row.kind for row in bill.rows] == [Kind.PAID, Kind.REFUNDED] and not bill.doubts


def test_a_day_of_nothing_and_rows_of_other_kinds():
    assert parsed(zipped(text_of(totals=()))).rows == ()
    assert parsed(zipped(text_of(line("1", "", "收费", "-1.00"), PAID, totals=()))).others == 1


def test_a_quote_in_a_name_swallows_no_row():
    bill = parsed(zipped(text_of(line("1", "X0", "交易", "1.00", name='"**a"b'), PAID, totals=())))
    assert [row.out_trade_no for row in bill.rows] == ["X0", "X1"]


@pytest.mark.parametrize(
    "totals",
    [
        ("#交易合计：2笔，商家实收共35.80元，商家优惠共0.00元",),
        ("#交易合计：1笔，商家实收共35.81元，商家优惠共0.00元",),
        ("##退款合计：0笔，商家实收退款共0.00元",),
    ],
)
def test_rows_that_their_own_totals_do_not_bear_out(totals: tuple[str, ...]):
    assert len(parsed(zipped(text_of(PAID, BACK, totals=totals))).doubts) == 1


WHOLE = text_of(PAID, BACK)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no zip",
        zipped(),
        zipped(WHOLE)[:-60],
        zipped(WHOLE.split("#-----------------------------------------业务明细列表结束")[0]),
        zipped(WHOLE.replace("#账号", "#帐户")),
        zipped(WHOLE.replace("商家实收（元）", "实收（元）")),
        zipped(WHOLE.replace("35.80,", "35.8O,")),
        zipped(WHOLE.replace(AT, "刚才")),
        zipped(WHOLE, WHOLE.replace(SELLER_ID, "2088000000000009")),
        zipped(*[WHOLE] * 70),
        zipped(WHOLE.replace(PAID, PAID.split(",挂号")[0])),
        zipped(WHOLE).replace(b"PK\x01\x02", b"PK\x01\x03"),
    ],
)
def test_half_a_bill_is_none(raw: bytes):
    with pytest.raises(BrokenBill) as raised:
        parsed(raw)
    assert "林" not in str(raised.value)


def test_a_zip_that_says_it_is_huge():
    raw = bytearray(zipped(WHOLE))
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 2**31)  # the unpacked size in the directory
    with pytest.raises(BrokenBill, match="too long"):
        parsed(bytes(raw))


def test_a_zip_that_lies_about_its_size():
    raw = bytearray(zipped(WHOLE))
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 40)
    with pytest.raises(BrokenBill):
        parsed(bytes(raw))


def test_the_sandboxs_own_bill_adds_up():
    at = moment_of(AT)
    entries = [Entry(at, 3580, "T1", "X1"), Entry(at, -3580, "T1", "X1", "R1"), Entry(at, 1, "T2", "X2")]
    bill = parsed(packed(SELLER_ID, entries))
    assert not bill.doubts and [row.fee_fen for row in bill.rows] == [21, 0, 0]
    assert sum(r.amount_fen if r.kind is Kind.PAID else -r.amount_fen for r in bill.rows) == 1
