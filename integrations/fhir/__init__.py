"""FHIR R4 over HTTP, the client's side: a wire that several connectors use. docs/HL7.md."""
