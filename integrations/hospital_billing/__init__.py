"""The hospital's own billing (HIS 收费): drugs and examinations. docs/HOSPITAL_BILLING.md has the wire."""
