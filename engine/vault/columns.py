"""Where data keys stand: what `xinglin vault rewrap` goes through. A new column of keys belongs here."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class KeyColumn:
    table: str
    column: str
    id: str = "id"  # of the row; a uuid

    @property
    def field(self) -> str:
        return f"{self.table}.{self.column}"


RECORD_KEY: Final = KeyColumn("patient", "record_key")
"""Name, identity number, medical words: as long as the law wants them kept."""
CONTACT_KEY: Final = KeyColumn("patient", "contact_key")
"""Telephones, appeals, what was said on the telephone: may go earlier."""
ACCOUNT_KEY: Final = KeyColumn("account", "contact_key")
SECOND_FACTOR_KEY: Final = KeyColumn("second_factor", "data_key", "staff_id")
WEBHOOK_KEY: Final = KeyColumn("webhook", "data_key")
INTAKE_KEY: Final = KeyColumn("intake_message", "data_key")
"""A message that waits: for a rule to be mended, or for its patient to be known here."""

KEY_COLUMNS: Final = (RECORD_KEY, CONTACT_KEY, ACCOUNT_KEY, SECOND_FACTOR_KEY, INTAKE_KEY, WEBHOOK_KEY)
