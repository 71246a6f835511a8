"""Who may do what, as data: see matrix.yaml."""
