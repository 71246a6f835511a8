"""The hospital's own system (HIS), in three forms behind one protocol (his.py). docs/HL7.md has the wires."""
