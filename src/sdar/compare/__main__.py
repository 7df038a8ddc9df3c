"""``python -m sdar.compare``, the same as ``sdar compare``."""

from sdar.compare.app import main
from sdar.errors import run_command

if __name__ == "__main__":
    run_command(main)
