"""Makes ``tests/`` importable, so that tests can say ``from helpers import ...``."""
