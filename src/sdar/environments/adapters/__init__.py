"""Environments that were written for other libraries, each behind an extra; docs/adapters.md is their table."""
