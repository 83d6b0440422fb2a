"""An ASGI application on an event loop of its own, called by tests that know of none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from starlette.types import ASGIApp

_SECONDS = 60
T = TypeVar("T")


class Served:
    """Runs an application's life and its requests, without a socket, while it is entered."""

    def __init__(self, application: ASGIApp, *, client: tuple[str, int], scheme: str = "http") -> None:
        self.application = application
        transport = httpx.ASGITransport(application, raise_app_exceptions=False, client=client)
        self._client = httpx.AsyncClient(transport=transport, base_url=f"{scheme}://pushfan.test")
        self._life: asyncio.Task[None]
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._heard: asyncio.Queue[Any] = asyncio.Queue()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._live("startup"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def close(self) -> None:
        """End the application's life, once."""
        if not self._life.done():
            self._run(self._live("shutdown"))

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call the application."""
        if "content" in more and not isinstance(more["content"], (bytes, str)):
            more["content"] = _stream(more["content"])
        return self._run(self._client.request(method, path, **more))

    def together(self, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        """Call it many times at once."""

        async def call() -> list[httpx.Response]:
            return list(
                await asyncio.gather(*(self._client.request(verb, path, **it) for verb, path, it in requests))
            )

        return self._run(call())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def _live(self, step: str) -> None:
        if step == "startup":
            scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
            self._life = asyncio.create_task(self._serve(scope))
        await self._said.put({"type": f"lifespan.{step}"})
        assert (await self._heard.get())["type"] == f"lifespan.{step}.complete"
        if step == "shutdown":
            await self._life

    async def _serve(self, scope: dict[str, Any]) -> None:
        await self.application(scope, self._said.get, self._heard.put)


async def _stream(chunks: Any) -> Any:
    for chunk in chunks:
        yield chunk
