"""Whether the server lives, whether it is ready for requests, and what it measures."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from registry import doctor, schema
from registry.errors import RegistryError
from registry.keys import Role

from .access import Access, Of, admit, is_loopback
from .desk import AtDesk, Desk
from .problem import Problem

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Does the process live?", include_in_schema=False)
async def health() -> dict[str, str]:
    """Answer, and ask nobody: a database that is away is no reason to start this process again."""
    return {"status": "ok"}


@router.get("/readyz", summary="Is it ready for requests?", include_in_schema=False)
async def ready(desk: AtDesk) -> Response:
    """Say whether the database answers, with the schema that this server knows, and how many workers are heard of."""
    try:
        state = await _state(desk)
    except (RegistryError, Problem) as error:
        return JSONResponse({"status": "unready", "reason": type(error).__name__}, 503)
    return JSONResponse(state, 200 if state["status"] == "ok" else 503)


async def _state(desk: Desk) -> dict[str, Any]:
    await desk.crew.query(lambda _: None)  # schema.version alone would wait for long
    version = await desk.crew.run(lambda: schema.version(desk.database))
    if version != schema.VERSION:
        return {"status": "unready", "reason": f"the schema is version {version}, not {schema.VERSION}"}
    workers = await desk.crew.query(doctor.workers_alive)
    return {"status": "ok", "workers": len(workers)}


@router.get("/metrics", summary="Figures for Prometheus", include_in_schema=False)
async def metrics(request: Request, desk: AtDesk) -> Response:
    """Tell figures to callers on this machine, and to operators' keys."""
    if not is_loopback(request):
        await admit(request, Access(role=Role.ADMIN, of=Of.NOBODY, is_for_operators=True))
    text, media_type = await request.app.state.metrics.write(desk.crew)
    return Response(text, media_type=media_type)
