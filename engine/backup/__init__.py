"""Copies of the database in a second place, encrypted, and the way back: docs/BACKUP.md."""
