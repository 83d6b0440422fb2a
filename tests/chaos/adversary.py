"""Makes the moves of the chosen scenarios, each scenario's in a thread of its own."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from .scenario import Arena, Move, Scenario

_LAST_MOVE_SECONDS: Final = 60.0


class Adversary:
    """Draws all moves when it is made: from then on nothing is left to chance but the machine."""

    def __init__(self, scenarios: Sequence[Scenario], *, seed: int, seconds: float) -> None:
        self.failures: list[str] = []
        self._plans: list[tuple[Scenario, list[Move]]] = [
            (one, sorted(one.moves(Random(f"{seed}/{one.name}"), seconds), key=lambda move: move.at))
            for one in scenarios
        ]
        self._threads: list[threading.Thread] = []

    def digest(self) -> str:
        """Tell one plan from another in a few letters."""
        moves = [(one.name, move.at, move.name) for one, plan in self._plans for move in plan]
        return hashlib.sha256(repr(moves).encode()).hexdigest()[:12]

    def start(self, arena: Arena) -> None:
        """Begin: instants of the moves count from now."""
        start = time.monotonic()
        for scenario, plan in self._plans:
            arguments = (scenario, plan, arena, start)
            thread = threading.Thread(target=self._play, args=arguments, name=scenario.name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, arena: Arena) -> None:
        """Wait for the moves under way, and let each scenario undo what it did."""
        for thread in self._threads:
            thread.join(_LAST_MOVE_SECONDS)
            if thread.is_alive():
                self.failures.append(f"the scenario {thread.name} did not end")
        for scenario, _ in self._plans:
            scenario.heal(arena)

    def _play(self, scenario: Scenario, plan: Sequence[Move], arena: Arena, start: float) -> None:
        try:
            self._move(scenario, plan, arena, start)
        finally:
            arena.stage.database.close()

    def _move(self, scenario: Scenario, plan: Sequence[Move], arena: Arena, start: float) -> None:
        for move in plan:
            arena.rest(start + move.at - time.monotonic())
            if arena.is_over():
                return
            try:
                move.act(arena)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on and fails at its end
                self.failures.append(f"the move {move.name} of {scenario.name} failed: {error!r}")
                return
            arena.tell(f"{scenario.name}: {move.name}")
