"""How everything about backups fails."""


class BackupFailed(Exception):
    """One line that says what is wrong and what to do. Holds no key, no credential and nobody's data."""
