"""What the laboratory of the demo examines: panels with codes, units, ranges, and plausible values. Pure."""

import random
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Item:
    code: str
    name: str
    unit: str
    low: float
    high: float
    digits: int = 1


@dataclass(frozen=True, slots=True)
class Panel:
    code: str
    name: str
    items: tuple[Item, ...]
    words: tuple[tuple[str, str, str], ...] = ()  # code, name, what it mostly is


PANELS: Final = (
    Panel(
        "CBC",
        "血常规",
        (
            Item("WBC", "白细胞计数", "10*9/L", 3.5, 9.5, 2),
            Item("RBC", "红细胞计数", "10*12/L", 3.8, 5.8, 2),
            Item("HGB", "血红蛋白", "g/L", 115, 175, 0),
            Item("PLT", "血小板计数", "10*9/L", 125, 350, 0),
        ),
    ),
    Panel(
        "URINE",
        "尿常规",
        (Item("PH", "酸碱度", "", 4.5, 8.0, 1), Item("SG", "比重", "", 1.003, 1.03, 3)),
        (("PRO", "尿蛋白", "阴性"), ("GLUU", "尿糖", "阴性"), ("BLD", "隐血", "阴性")),
    ),
    Panel("GLUC", "葡萄糖测定", (Item("GLU", "葡萄糖", "mmol/L", 3.9, 6.1, 2),)),
    Panel(
        "BIOCHEM",
        "肝肾功能",
        (
            Item("ALT", "丙氨酸氨基转移酶", "U/L", 9, 50, 0),
            Item("CREA", "肌酐", "umol/L", 57, 111, 0),
            Item("K", "钾", "mmol/L", 3.5, 5.3, 2),
            Item("NA", "钠", "mmol/L", 137, 147, 1),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Result:
    code: str
    name: str
    value: str
    unit: str
    reference: str
    flag: str  # of HL7 table 0078

    @property
    def kind(self) -> str:
        return "NM" if self.reference else "ST"


def results(panel: Panel, chance: random.Random) -> list[Result]:
    """Most lie within their range, as those of most people do."""
    found = []
    for item in panel.items:
        width = item.high - item.low
        value = item.low + width * chance.uniform(0.05, 0.95)
        if chance.random() < 0.15:
            value = item.high + width * chance.uniform(0.05, 0.4)
        elif chance.random() < 0.1:
            value = max(item.low - width * chance.uniform(0.05, 0.3), item.low * 0.7)
        flag = "H" if value > item.high else "L" if value < item.low else "N"
        reference = f"{item.low:g}-{item.high:g}"
        found.append(Result(item.code, item.name, f"{value:.{item.digits}f}", item.unit, reference, flag))
    for code, name, usual in panel.words:
        positive = chance.random() < 0.1
        found.append(Result(code, name, "阳性(+)" if positive else usual, "", "", "A" if positive else "N"))
    return found
