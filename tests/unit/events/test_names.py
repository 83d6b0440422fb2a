"""The names that producers, workers and operators configure by hand."""

from events import names
from events.names import Lane, deliver_queue


def test_intake_names_are_the_public_contract() -> None:
    """A service that has only Celery sends to these two names; changing one strands its messages."""
    assert (names.TASK_INTAKE, names.QUEUE_INTAKE) == ("pushfan.intake", "pushfan.intake")


def test_each_lane_has_a_queue_of_its_own() -> None:
    """Workers are started by these queue names."""
    assert [deliver_queue(lane) for lane in Lane] == [
        "pushfan.deliver.urgent",
        "pushfan.deliver.normal",
        "pushfan.deliver.bulk",
    ]


def test_internal_names_are_distinct() -> None:
    """No two tasks and no two queues share a name."""
    tasks = {names.TASK_INTAKE, names.TASK_PLAN, names.TASK_DELIVER, names.TASK_FEEDBACK}
    queues = {names.QUEUE_INTAKE, names.QUEUE_PLAN, names.QUEUE_FEEDBACK, *map(deliver_queue, Lane)}
    assert (len(tasks), len(queues)) == (4, 6)
