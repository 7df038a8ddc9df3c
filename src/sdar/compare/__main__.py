"""``python -m sdar.compare``."""

import sys

from sdar.compare.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
