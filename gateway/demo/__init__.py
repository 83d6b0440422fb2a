"""`pushfan demo`: fan out to simulated phones, let things go wrong on purpose, and account for every delivery.

1. `world`: from a seed, who is there and what will happen.
2. `stage`: registers it and tells the simulators how to behave.
3. `play`, with `post` and `kill`: publishes in waves through the real stack.
4. `reckoning`, `reconcile`: the plan, the ledger and the receipts, compared delivery by delivery.
5. `report`: for programs and for people.
"""

from __future__ import annotations

from .show import run

__all__ = ["run"]
