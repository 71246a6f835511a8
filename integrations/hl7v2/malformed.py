"""What cannot be read as HL7 v2."""


class Malformed(Exception):
    """Not HL7 as we read it. `where` is a place such as PID-5.1 or "segment 7", `why` a word for figures.

    The text names no value of the message: it goes back to the sender, and into logs.
    """

    def __init__(self, where: str, why: str, text: str = "") -> None:
        super().__init__(f"{where}: {text or why}")
        self.where = where
        self.why = why
        self.text = text or why
