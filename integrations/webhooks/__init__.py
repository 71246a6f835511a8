"""Signed messages to addresses that others registered. The wire is that of standard-webhooks."""
