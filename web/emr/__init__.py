"""What record systems tell and are told: docs/EMR.md."""
