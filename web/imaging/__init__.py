"""Examinations with pictures: docs/IMAGING.md."""
