"""What the sandbox's doctors prescribe: made from the patient's number, so the same person owes the same."""

import hashlib
from typing import Any, Final

# code, kind, name, fen of one
CATALOG: Final = (
    ("D0101", "drug", "阿莫西林胶囊 0.25g×24粒", 1_280),
    ("D0102", "drug", "布洛芬缓释胶囊 0.3g×20粒", 1_850),
    ("D0103", "drug", "盐酸氨溴索口服溶液 100ml", 2_360),
    ("D0104", "drug", "苯磺酸氨氯地平片 5mg×7片", 990),
    ("D0105", "drug", "二甲双胍缓释片 0.5g×30片", 2_145),
    ("D0106", "drug", "复方甘草片 100片", 1_530),
    ("E0201", "examination", "血常规", 2_500),
    ("E0202", "examination", "肝功能十一项", 8_800),
    ("E0203", "examination", "胸部正位片", 7_600),
    ("E0204", "examination", "腹部彩色多普勒超声", 13_500),
    ("E0205", "examination", "常规心电图", 2_000),
)


def number_of(kind: str, number: str, which: int) -> str:
    """Of a bill: the same person has the same ones. For people of a demo alone: a plain hash hides nobody."""
    return f"CF{hashlib.sha256(f'{kind}/{number}'.encode()).hexdigest()[:12].upper()}-{which}"


def items_of(bill_number: str, revision: int) -> list[dict[str, Any]]:
    """One to four lines; another revision is another prescription."""
    dice = hashlib.sha256(f"{bill_number}/{revision}".encode()).digest()
    chosen = sorted({dice[n] % len(CATALOG) for n in range(1, 2 + dice[0] % 4)})
    items: list[dict[str, Any]] = []
    for line, which in enumerate(chosen, 1):
        code, kind, name, fen = CATALOG[which]
        quantity = 1 + dice[16 + line] % 3 if kind == "drug" else 1
        items.append(
            {
                "line": str(line),
                "kind": kind,
                "code": code,
                "name": name,
                "quantity": quantity,
                "fen": fen * quantity,
            }
        )
    return items
