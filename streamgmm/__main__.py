"""``python -m streamgmm``."""

import sys

from streamgmm.cli import main

sys.exit(main())
