"""All scenarios, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos.scenario import Scenario

ALL: Mapping[str, type[Scenario]] = {}
