"""`python -m rnntune`."""

import sys

from rnntune.cli import main

sys.exit(main())
