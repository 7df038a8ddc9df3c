"""``python -m sdar``, the same as the console script ``sdar``."""

from sdar.commands.front import cli

cli()
