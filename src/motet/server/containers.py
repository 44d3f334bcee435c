"""The files of containers as the API gives them out: listed, described, downloaded, deleted.

A container is a session of the python tool. A file is given out while its response runs, as long as its session lives if the
response was not stored, and as long as the response is kept if it was. Only the key that made it finds it.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from openai.types.containers import FileRetrieveResponse
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from motet.server.auth import Key
from motet.server.errors import ApiError
from motet.server.files import FOLDER, File
from motet.server.host import Host
from motet.server.routes import Page, key_of, page_of

# A file is whatever the code made of it, so that no browser may show it in the name of this server.
_INERT = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}
_BYTES: dict[int | str, Any] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


class FileList(Page[FileRetrieveResponse]):
    """A page of files."""


class FileGone(BaseModel):
    """A file that is deleted."""

    id: str
    object: Literal["container.file.deleted"] = "container.file.deleted"
    deleted: Literal[True] = True


def add_containers(app: FastAPI, host: Host) -> None:
    """The routes."""

    @app.get("/v1/containers/{container_id}/files", response_model=FileList)
    async def files(
        container_id: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> Any:
        """Files that code has made in a container."""
        found = await asyncio.to_thread(_listed, host, container_id, key_of(request))
        told = [_told(f) for f in found]
        return page_of(told if order == "asc" else told[::-1], limit, after)

    @app.get("/v1/containers/{container_id}/files/{file_id}", response_model=FileRetrieveResponse)
    async def file(container_id: str, file_id: str, request: Request) -> Response:
        """What is known of one."""
        found = await asyncio.to_thread(_found, host, container_id, file_id, key_of(request))
        return JSONResponse(_told(found))

    @app.get(
        "/v1/containers/{container_id}/files/{file_id}/content", response_class=Response, responses=_BYTES
    )
    async def content(container_id: str, file_id: str, request: Request) -> Response:
        """Its bytes, to be saved and not to be shown."""
        found = await asyncio.to_thread(_found, host, container_id, file_id, key_of(request))
        saved = f"attachment; filename*=UTF-8''{quote(found.name, safe='')}"
        headers = {**_INERT, "Content-Disposition": saved}
        return Response(found.data, media_type="application/octet-stream", headers=headers)

    @app.delete("/v1/containers/{container_id}/files/{file_id}")
    async def delete(container_id: str, file_id: str, request: Request) -> FileGone:
        """Forgets one."""
        key = key_of(request)
        if any(f.id == file_id for f in _running(host, container_id, key)):
            raise ApiError(409, "The response that made this file is not over; wait for it.", code="conflict")
        if not await asyncio.to_thread(_deleted, host, container_id, file_id, key):
            raise _unknown("file")
        return FileGone(id=file_id)


def _running(host: Host, container: str, key: Key) -> list[File]:
    mine = [r for r in list(host.runs.values()) if r.owner == key.name]
    return [f for r in mine for f in r.files if f.container == container]


def _listed(host: Host, container: str, key: Key) -> list[File]:
    here = host.workshop.files(key.name, container)
    stored = host.store.files(container, key.name) if host.store else []
    found = {f.id: f for f in (*stored, *(here or ()), *_running(host, container, key))}
    if not found and here is None:
        raise _unknown("container")
    return list(found.values())


def _found(host: Host, container: str, id: str, key: Key) -> File:
    near = (*_running(host, container, key), *(host.workshop.files(key.name, container) or ()))
    found: File | None = next((f for f in near if f.id == id), None)
    if found is None and host.store is not None:
        found = host.store.file(id, container, key.name)
    if found is None:
        raise _unknown("file")
    return found


def _deleted(host: Host, container: str, id: str, key: Key) -> bool:
    if host.workshop.forget(key.name, container, id):
        return True
    return host.store is not None and host.store.delete_file(id, container, key.name)


def _told(f: File) -> dict[str, Any]:
    """As the API has it."""
    return {
        "id": f.id, "object": "container.file", "container_id": f.container, "created_at": int(f.created_at),
        "bytes": f.size, "path": FOLDER + f.name, "source": "assistant",
    }  # fmt: skip


def _unknown(what: str) -> ApiError:
    said = f"There is no such {what} here; it may have expired or be deleted."
    return ApiError(404, said, param=f"{what}_id", code="not_found")
