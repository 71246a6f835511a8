"""The hospital's record system (EMR, 电子病历), over FHIR R4. docs/EMR.md says how it is set up."""
