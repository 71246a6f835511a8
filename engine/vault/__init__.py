"""What names, identity numbers, telephones and clinical words are sealed with: docs/VAULT.md.

Three levels: a key outside the database (kek.py, hsm.py) wraps a few master keys (masters.py), these wrap one
or two data keys a person, and a data key seals what one row says about that person.
"""
