"""Start one simulator: `python -m providers.simulators fcm|apns|jpush --state-dir DIR`."""

from __future__ import annotations

import sys

from .process import main

sys.exit(main())
