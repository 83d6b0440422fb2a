"""Names of tasks, queues and lanes that producers and workers share.

`pushfan.intake`, task and queue, is a public contract with producers; all other names are internal.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

TASK_INTAKE: Final = "pushfan.intake"
TASK_PLAN: Final = "pushfan.plan"
TASK_DELIVER: Final = "pushfan.deliver"
TASK_FEEDBACK: Final = "pushfan.feedback"

QUEUE_INTAKE: Final = "pushfan.intake"
QUEUE_PLAN: Final = "pushfan.plan"
QUEUE_FEEDBACK: Final = "pushfan.feedback"

# The only argument of a queue on RabbitMQ. Producer and worker both declare the intake queue, and RabbitMQ
# refuses a second declaration with other arguments (406 PRECONDITION_FAILED), so both take it from here.
QUORUM_QUEUE_ARGUMENTS: Final = {"x-queue-type": "quorum"}


class Lane(StrEnum):
    """How soon deliveries want to leave; each lane has a queue of its own, urgent also worker processes."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


def deliver_queue(lane: Lane) -> str:
    """Name the queue that carries the chunks of a lane."""
    return f"pushfan.deliver.{lane.value}"
