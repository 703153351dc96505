"""`python -m imgalign` is `imgalign`."""

import sys

from imgalign.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
