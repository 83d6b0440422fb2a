"""The Celery tasks: decode, call, and translate what was decided into Celery's verbs.

A task that cannot reach the database puts its message back; nothing else is ever retried by Celery.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import Reject

from events.names import TASK_DELIVER, TASK_FEEDBACK, TASK_INTAKE, TASK_PLAN
from registry.errors import Busy, DatabaseUnavailable

from . import deliver as delivery
from . import feedback, intake, plan
from .dead_letters import TASK_DEAD_LETTER, bury

if TYPE_CHECKING:
    from .runtime import Runtime


def register_tasks(app: Celery, runtime: Runtime) -> None:
    """Give the application its tasks."""

    def register(name: str, run: Callable[..., Any], **options: Any) -> None:
        app.task(_guarded(runtime, run), name=name, shared=False, **options)

    register(
        TASK_INTAKE,
        lambda *_, events=None, **__: intake.take_in_message(
            runtime.door, events, message_id=app.current_worker_task.request.id
        ),
        Request="workers.consumer:IntakeRequest",
    )
    register(
        TASK_PLAN,
        lambda *, notification: plan.plan(runtime.door, notification, is_stopping=runtime.stop),
    )
    register(
        TASK_DELIVER,
        lambda *, chunk, channel: delivery.deliver(runtime.tools, chunk_id=chunk, channel_id=channel),
    )
    register(
        TASK_FEEDBACK,
        lambda *, duty, channel: feedback.work(runtime.tools, duty=duty, channel_id=channel),
    )
    register(TASK_DEAD_LETTER, lambda *, kind, error, body: bury(runtime.database, kind, error, body))


def _guarded(runtime: Runtime, run: Callable[..., Any]) -> Callable[..., Any]:
    def task(*args: Any, **kwargs: Any) -> Any:
        with runtime.stop.working():
            try:
                return run(*args, **kwargs)
            except (Busy, DatabaseUnavailable) as error:
                raise Reject(str(error), requeue=True) from error

    return task
