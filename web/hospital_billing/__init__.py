"""Bills of the hospital's own billing: asked for, paid here, told back. docs/HOSPITAL_BILLING.md."""
