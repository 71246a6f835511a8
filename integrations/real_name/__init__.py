"""The register of real names: whether a name and an identity number belong together."""
