"""The OpenAPI document as a page for people: no script, nothing from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

router = APIRouter(tags=["operation"])

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f4f4f4;padding:.7rem;overflow:auto;white-space:pre-wrap}
summary{cursor:pointer}summary code{font-weight:600}section{border-top:1px solid #ddd;padding:.3rem 0}
table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0;vertical-align:top}h2{margin-top:2.5rem}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#262626}section{border-color:#444}}
"""


@router.get("/docs", summary="This, for people", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Show the reference."""
    return HTMLResponse(render(request.app.openapi()))


def render(document: Mapping[str, Any]) -> str:
    """Write the whole page."""
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])} API</title>",
        '<meta name=viewport content="width=device-width">',
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} API</h1>",
        *(f"<p>{_inline(text)}</p>" for text in info["description"].split("\n\n")),
        '<p>For programs: <a href="/openapi.json">openapi.json</a></p>',
    ]
    by_tag: dict[str, list[str]] = {}
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            by_tag.setdefault(call["tags"][0], []).append(_call(method, path, call))
    for tag, calls in by_tag.items():
        parts += [f"<h2>{escape(tag)}</h2>", *calls]
    parts.append("<h2>schemas</h2>")
    parts += [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "".join(parts)


def _call(method: str, path: str, call: Mapping[str, Any]) -> str:
    head = f"<code>{method.upper()} {escape(path)}</code> {_inline(call['summary'])}"
    return f"<section><details><summary>{head}</summary>{''.join(_details(call))}</details></section>"


def _details(call: Mapping[str, Any]) -> Iterator[str]:
    for text in call.get("description", "").split("\n\n"):
        yield f"<p>{_inline(text)}</p>"
    if parameters := call.get("parameters"):
        rows = (
            f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}"
            f"<td>{'required' if one.get('required') else ''}<td>{_inline(one.get('description', ''))}"
            for one in parameters
        )
        yield f"<table>{''.join(rows)}</table>"
    for media_type, content in call.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, <code>{media_type}</code></p>{_json(content['schema'])}"
    for status, answer in call["responses"].items():
        yield f"<p><code>{status}</code> {_inline(answer['description'])}</p>"
        for content in answer.get("content", {}).values() if status.startswith("2") else ():
            yield _json(content.get("schema", {}))


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    return (
        f"<section><details><summary><code>{escape(name)}</code></summary>{_json(schema)}</details></section>"
    )


def _json(schema: Any) -> str:
    return f"<pre>{escape(json.dumps(schema, indent=1, ensure_ascii=False))}</pre>"


def _inline(text: str) -> str:
    """Write a sentence, what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
