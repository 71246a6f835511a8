"""Our FHIR R4 face: what partners see of schedules, and book, in FHIR's words. docs/FHIR.md."""
