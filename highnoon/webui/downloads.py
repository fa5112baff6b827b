"""Sends artifacts from the store. A store that is frozen holds a few threads of this process at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from threading import BoundedSemaphore
from typing import BinaryIO
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import StreamingResponse

from highnoon.shared.domain.artifact import Artifact
from highnoon.shared.domain.errors import FileStoreError
from highnoon.shared.runtime.file_store import store_of
from highnoon.shared.runtime.settings import Settings
from highnoon.webui.responses import problem_response

_AT_ONCE = 8
_CHUNK_BYTES = 1 << 18


class Downloads:
    """The files of trials, as attachments: a browser shows none of them as a page of ours."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free = BoundedSemaphore(_AT_ONCE)

    def response(self, artifact: Artifact) -> Response:
        """The file, or a problem while the store is away or busy."""
        if not self._free.acquire(blocking=False):
            return problem_response(503, "Too many files are being downloaded.", headers={"retry-after": "10"})
        opened = ExitStack()
        opened.callback(self._free.release)
        try:
            file = opened.enter_context(store_of(self._settings).opened(artifact.id))
        except FileStoreError as error:
            opened.close()
            return problem_response(503, f"{artifact.name} cannot be read: {error}", headers={"retry-after": "10"})
        except BaseException:
            opened.close()
            raise
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(artifact.name, safe='')}",
            # Of a user's file nothing may run or be fetched, wherever a browser opens it.
            "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        }
        if artifact.size_bytes is not None:
            headers["content-length"] = str(artifact.size_bytes)
        return StreamingResponse(_Chunks(opened, file), media_type="application/octet-stream", headers=headers)


class _Chunks(Iterator[bytes]):
    """The content; gives the file back at its end, also where it was not read to it."""

    def __init__(self, opened: ExitStack, file: BinaryIO) -> None:
        self._opened = opened
        self._file = file

    def __next__(self) -> bytes:
        chunk = self._file.read(_CHUNK_BYTES)
        if not chunk:
            self._opened.close()
            raise StopIteration
        return chunk

    def __del__(self) -> None:
        self._opened.close()
