"""``python -m physml`` is the command ``physml``."""

from __future__ import annotations

import sys

from physml.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
