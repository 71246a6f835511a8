"""What came in and is wrong, for the administrator: through a whole gateway, by the laboratory's route."""
