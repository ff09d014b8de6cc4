"""``python -m razorlight``."""

import sys

from razorlight.cli import main

sys.exit(main())
