"""`pushfan demo`: fan out to simulated phones, let things go wrong on purpose, and account for every delivery.

1. `world`: from a seed, who is there and what will happen.
2. `stage`: registers it and tells the simulators how to behave.
3. `play`, with `post`: publishes in waves through the real stack.
4. `attacks`, with `kill`, `emptying` and `revocation`: strikes while `traffic` is under way and `pulse` watches.
5. `reckoning`, `reconcile`, `columns`: the plan, the ledger and the receipts, compared delivery by delivery.
6. `question`: why one user did not get something.
7. `telling`, `board`, `report`: for programs and for people.
"""

from __future__ import annotations

from .show import run

__all__ = ["run"]
