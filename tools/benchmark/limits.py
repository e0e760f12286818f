"""What the same work costs without a backup tool: the physical limits beside the figures."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tools.benchmark.dataset import remove
from tools.benchmark.results import Dataset, Limits

_PIECE = 1 << 20
_ENCRYPTED_MB = 128
_MB = 1_000_000


def measure(source: Path, scratch: Path, dataset: Dataset) -> Limits:
    """Measure them on a tree; `scratch` is a directory on its file system that does not exist."""
    scratch.mkdir()
    try:
        copied_s = _seconds(lambda: _cp("-a", source, scratch / "copy"))
        linked_s = _seconds(lambda: _cp("-al", scratch / "copy", scratch / "linked"))
    finally:
        remove(scratch)
    encrypted_s = _seconds(_encrypt) / _ENCRYPTED_MB
    size_mb = (dataset.small_bytes + dataset.big_bytes) / _MB
    return Limits(
        hard_link_copy_s=linked_s,
        encrypted_copy_s=copied_s + encrypted_s * size_mb,
        walk_s=_seconds(lambda: _walk(source)),
    )


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _cp(how: str, source: Path, target: Path) -> None:
    subprocess.run(["cp", how, source, target], check=True)


def _encrypt() -> None:
    """Encrypt and decrypt, as two ends do."""
    cipher, piece = AESGCM(AESGCM.generate_key(256)), os.urandom(_PIECE)
    for number in range(_ENCRYPTED_MB * _MB // _PIECE):
        nonce = number.to_bytes(12, "big")
        cipher.decrypt(nonce, cipher.encrypt(nonce, piece, None), None)


def _walk(tree: Path) -> None:
    pending = [os.fspath(tree)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
