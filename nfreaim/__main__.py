"""``python -m nfreaim`` is the same command as ``nfreaim``."""

import sys

from nfreaim.cli import main

if __name__ == "__main__":
    sys.exit(main())
