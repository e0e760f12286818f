"""`python -m ssfs` is `ssfs`."""

import sys

from ssfs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
