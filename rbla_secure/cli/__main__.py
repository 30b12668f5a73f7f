"""``python -m rbla_secure.cli`` is the installed ``rbla-secure``."""

import sys

from rbla_secure.cli.entry_point import main

if __name__ == "__main__":
    sys.exit(main())
