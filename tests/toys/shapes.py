"""How shapes in annotations are checked in tests: beartype, to which whole numbers are floats as they are to mypy."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
