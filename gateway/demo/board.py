"""Draw how things are at one moment: what happens, each provider, and how long a direct push takes just now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from registry.channels import Circuit, Provider

from .pulse import Vital
from .reconcile import percentile

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDEST: Final = 100
_COLORS: Final = {Circuit.CLOSED: "green", Circuit.OPEN: "red", Circuit.PROBING: "yellow"}
_RECENT: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is shown. `latencies_ms` are of the direct pushes so far, the last one last."""

    sentence: str
    seconds: float
    vitals: Mapping[Provider, Vital] = field(default_factory=dict)
    latencies_ms: Sequence[float] = ()


def draw(scene: Scene, width: int) -> RenderableType:
    """Draw a scene for a terminal of some width."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    parts: list[RenderableType] = [Text(scene.sentence, style="bold")]
    if scene.vitals:
        parts += [Text(""), _table(scene.vitals), Text(""), Text(describe(scene.latencies_ms))]
    return Panel(
        Group(*parts),
        title=f"pushfan demo  {scene.seconds:.0f} s",
        title_align="left",
        border_style="cyan",
        width=min(width, _WIDEST),
        padding=(0, 1),
    )


def describe(latencies_ms: Sequence[float]) -> str:
    """Say how long direct pushes take."""
    if not latencies_ms:
        return "direct push: none has been accepted yet"
    recent = latencies_ms[-_RECENT:]
    median = percentile(recent, 0.5)
    return f"direct push: accepted after {recent[-1]:,.0f} ms; median of the last {len(recent)}: {median:,.0f} ms"


def circuit(vital: Vital) -> str:
    """Say how a channel's circuit is, and why."""
    reason = f": {vital.reason.value.replace('_', ' ')}" if vital.reason else ""
    return f"{vital.circuit.value}{reason}"


def _table(vitals: Mapping[Provider, Vital]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    table.add_column("provider")
    table.add_column("circuit", min_width=20)
    for name in ("a second", "received", "to retry", "open"):
        table.add_column(name, justify="right", min_width=8)
    for provider in Provider:
        if (vital := vitals.get(provider)) is None:
            continue
        table.add_row(
            provider.value,
            Text(circuit(vital), style=_COLORS[vital.circuit]),
            f"{vital.rate:,.0f}",
            f"{vital.received:,}",
            f"{vital.waiting:,}",
            f"{vital.open:,}",
        )
    return table
