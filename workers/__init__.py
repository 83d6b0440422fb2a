"""What Pushfan does: the Celery application, intake, planning, delivery, retries, feedback and the dispatcher."""
