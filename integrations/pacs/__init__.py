"""The hospital's picture archive (PACS), over DICOMweb. docs/IMAGING.md says how it is set up."""
