"""The application under the name that Celery's own commands and Flower load: `celery -A workers.celery_app …`."""

from __future__ import annotations

from .app import create_app
from .settings import load_settings

app = create_app(load_settings())
