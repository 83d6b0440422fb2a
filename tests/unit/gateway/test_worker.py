"""Which queues a worker reads: together the recommended two read all, and a broadcast never has an event in hand."""

from events.names import QUEUE_INTAKE, QUEUE_PLAN, Lane, deliver_queue
from gateway.worker import queues_of
from workers.app import QUEUES


def test_worker_for_all_lanes_reads_every_queue() -> None:
    """That is what one has without options."""
    assert sorted(queues_of(list(Lane))) == sorted(QUEUES)


def test_urgent_worker_takes_in_and_does_not_plan() -> None:
    """A page of a broadcast takes longer than an urgent push may wait."""
    assert sorted(queues_of(["urgent"])) == sorted([QUEUE_INTAKE, deliver_queue(Lane.URGENT)])


def test_other_workers_plan_and_do_not_take_in() -> None:
    """So that few processes take events off the queue, and what waits there is taken in together."""
    queues = queues_of(["normal", "bulk"])
    assert QUEUE_INTAKE not in queues
    assert QUEUE_PLAN in queues
    assert sorted({*queues, *queues_of(["urgent"])}) == sorted(QUEUES)
