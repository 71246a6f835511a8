"""Money is an int of fen. Nothing else: no floats, no currencies."""


def yuan(fen: int) -> str:
    """As people read it: 5000 -> '¥50.00', -5 -> '-¥0.05'."""
    sign = "-" if fen < 0 else ""
    return f"{sign}¥{abs(fen) // 100}.{abs(fen) % 100:02d}"
