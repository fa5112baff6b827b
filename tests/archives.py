"""Archives that no honest `submit --bundle` would make."""

from __future__ import annotations

import io
import tarfile


def member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """One entry; `target` is where a link leads."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, len(content)
    made.pax_headers = {"comment": content.decode()} if content else {}
    return made


def archived(*members: tarfile.TarInfo) -> bytes:
    """All of them in one archive, in this order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one in members:
            content = one.pax_headers.pop("comment", "").encode()
            archive.addfile(one, io.BytesIO(content))
    return stream.getvalue()
