"""Whose source is it: the client's name, the source's identity, the task's default name."""

import os
import re
import socket


def client_name() -> str:
    """What this machine calls itself, without the domain."""
    return socket.gethostname().partition(".")[0] or "localhost"


def source_identity(path: bytes, source_id: str | None) -> str:
    """What a task remembers of its source: the absolute path, or the name the user gave it."""
    identity = os.fsencode(source_id) if source_id else os.path.realpath(path)
    # It travels and is kept as UTF-8 text, which a path need not be.
    return identity.decode(errors="backslashreplace")


def default_task(client: str, path: bytes, source_id: str | None) -> str:
    """The task a sync uses when none is named: the client, then the path with dashes.

    `/srv/docs` on nas1 is `nas1-srv-docs`, `/` is `nas1`; characters that cannot name a task become `_`.
    """
    where = source_id or os.fsdecode(os.path.realpath(path)).strip("/").replace("/", "-")
    name = "-".join(part for part in (client, where) if part)
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:200].lstrip(".-") or "task"
