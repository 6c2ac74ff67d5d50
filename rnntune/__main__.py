"""`python -m rnntune`."""

import sys

from rnntune.cli.main import main

sys.exit(main())
