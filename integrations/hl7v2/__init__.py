"""HL7 v2 over MLLP: a wire that several connectors use. docs/HL7.md."""
