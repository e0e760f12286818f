"""The process of a mount: to the background and back, signals, the end.

`mount` checks everything that can be checked while the caller still listens. In the background a grandchild
serves, detached from the terminal; the caller waits on a pipe until it serves or has failed, and
gets the child's error as its own. If the caller dies meanwhile the child finds the pipe closed and gives up.

SIGTERM, SIGINT and SIGHUP unmount and end it; so does an unmount from outside. Unmounting here is lazy: whoever
still has a file open gets an error at the next request, and the mountpoint is free at once.
"""

import contextlib
import logging
import logging.handlers
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NoReturn

import msgspec
import pyfuse3
import trio

from ssfs.clock import SystemClock
from ssfs.errors import (
    ConfigError,
    CorruptStore,
    InternalError,
    SsfsError,
    StoreError,
    StoreFull,
    StoreLocked,
)
from ssfs.fsio.disk import raise_descriptor_limit
from ssfs.mount import samba
from ssfs.mount.mountpoint import (
    SUBTYPE,
    check_fuse,
    check_mountpoint,
    clear_dead_mounts,
    find_mount,
    table_name,
    umount,
)
from ssfs.mount.operations import MountOperations
from ssfs.mount.options import MountOptions, parse_options
from ssfs.mount.owners import Owners
from ssfs.mount.passthrough import Passthrough, fuse_descriptors
from ssfs.mount.pump import Pump
from ssfs.mount.remote.mount import RemoteMount
from ssfs.mount.remote.target import RemoteTarget
from ssfs.mount.tree import MountTarget, MountTree

__all__ = ["MountOptions", "MountTarget", "RemoteTarget", "mount", "parse_options", "umount"]

_log = logging.getLogger(__name__)

_READ_AHEAD_KB = 1024
_TICK_S = 5.0
_ERRORS: dict[str, type[SsfsError]] = {
    kind.__name__: kind
    for kind in (ConfigError, CorruptStore, SsfsError, StoreError, StoreFull, StoreLocked)
}


class _Outcome(msgspec.Struct):
    """What the child tells its parent, once: it serves (`kind` empty), or why not."""

    kind: str = ""
    problem: str = ""
    path: bytes | None = None
    remedy: str = ""


def mount(
    target: MountTarget | RemoteTarget,
    mountpoint: bytes,
    options: MountOptions,
    *,
    foreground: bool,
) -> None:
    """Mount a store, a sync point or a task, of this machine or of a server, also where a mount of ssfs has died.

    In the background this returns as soon as the mount serves; in the foreground when it has ended.

    Raises:
        ConfigError: The mountpoint is not fit, or this machine cannot mount.
        StoreError: The store cannot be read.
    """
    clear_dead_mounts(mountpoint)
    path = check_mountpoint(mountpoint)
    check_fuse()
    clock = SystemClock()
    if isinstance(target, RemoteTarget) and options.damaged_ok:
        raise ConfigError(
            "Mount option 'damaged_ok' is for a store of this machine",
            remedy="mount it there, or do without",
        )
    tree = MountTree(
        RemoteMount(target, clock, options.timeout_s, options.idle_s)
        if isinstance(target, RemoteTarget)
        else target,
        clock,
        owners=Owners(options.owners, sole=options.sole_owner),
        idle_s=options.idle_s,
        damaged_ok=options.damaged_ok,
        views={samba.VIEW: samba.SambaDirectory} if options.samba else {},
    )
    if options.history:
        tree.offer_history(listed=options.show_history)
    tree.check()
    if foreground:
        _run(tree, path, options, _say_nothing)
    else:
        _run_in_background(tree, path, options)


def _say_nothing() -> None:
    """Nobody waits for a mount in the foreground."""


# -- serving -------------------------------------------------------------------------------------


def _run(tree: MountTree, path: bytes, options: MountOptions, announce: Callable[[], None]) -> None:
    raise_descriptor_limit()
    trio.run(_serve, tree, path, options, announce)


async def _serve(
    tree: MountTree, path: bytes, options: MountOptions, announce: Callable[[], None]
) -> None:
    started = trio.Event()
    # From before the mount appears: a signal in between would leave a dead mountpoint behind.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        try:
            operations = MountOperations(tree, started.set, tree.start())
            fd = _init_fuse(tree.location, path, options)
        except BaseException:
            tree.close()
            raise
        try:
            # What is damaged and read all the same may be of another length than we say.
            operations.connect(Passthrough(fd, is_possible=not options.damaged_ok))
            pump = Pump(fd, operations.answer, tree.handles.prepare)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_on_signal, signals, pump)
                nursery.start_soon(_close_idle, tree, pump, min(_TICK_S, options.idle_s / 4))
                nursery.start_soon(_begin, started, pump, path, announce)
                await pump.run()
                nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close(unmount=True)
            tree.close()


async def _end_on_signal(signals: AsyncIterator[int], pump: Pump) -> None:
    async for _ in signals:
        pump.stop()


async def _close_idle(tree: MountTree, pump: Pump, period_s: float) -> None:
    while True:
        await trio.sleep(max(period_s, 0.05))
        try:
            tree.close_idle()
        except Exception:  # noqa: BLE001 - the root of a task
            # Versions held for too long are a nuisance, the end of the mount would be worse.
            _log.exception("Idle versions cannot be let go")
        for directory, name in tree.take_vanished():
            try:
                # All that the kernel keeps for a version goes with it, open files and their pages aside.
                await pump.forget(directory, name)
            except OSError as error:
                _log.error("The kernel cannot be told that %r has gone: %s", name, error)


async def _begin(
    started: trio.Event, pump: Pump, path: bytes, announce: Callable[[], None]
) -> None:
    """What is left to do once the kernel has got its first answer."""
    await started.wait()
    _widen_read_ahead(path)
    try:
        announce()
    except BrokenPipeError:
        # Who asked for this mount is gone and will never unmount it.
        pump.stop()


def _widen_read_ahead(path: bytes) -> None:
    """Let the kernel read further ahead: 1.0 -> 2.3 GB/s (DESIGN.md section 6); root only."""
    entry = find_mount(path)
    if entry is not None:
        with contextlib.suppress(OSError):
            with open(f"/sys/class/bdi/{entry.device}/read_ahead_kb", "w", encoding="ascii") as f:
                f.write(str(_READ_AHEAD_KB))


def _init_fuse(location: str, path: bytes, options: MountOptions) -> int:
    """Make the mount appear; requests wait until they are taken from the descriptor that is returned."""
    wanted = {"ro", "nosuid", "nodev", "default_permissions", f"fsname={table_name(location)}"}
    wanted |= {f"subtype={SUBTYPE}", *options.kernel}
    if options.allow_other:
        wanted.add("allow_other")
    before = fuse_descriptors()
    with _captured_stderr() as said:
        try:
            pyfuse3.init(pyfuse3.Operations(), os.fsdecode(path), wanted)
        except RuntimeError as error:
            # libfuse says why on stderr, and only there.
            why = " ".join(said().split()) or str(error)
            raise ConfigError(f"Mounting failed: {why}", path=path) from error
    (fd,) = fuse_descriptors() - before
    return fd


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep what C code writes to stderr; yields a function that returns it."""
    catcher = os.memfd_create("stderr", os.MFD_CLOEXEC)
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(catcher, 2)
    try:
        yield lambda: os.pread(catcher, 4096, 0).decode(errors="replace")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(catcher)


# -- in the background ---------------------------------------------------------------------------


def _run_in_background(tree: MountTree, path: bytes, options: MountOptions) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _detach(tree, path, options, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        os.waitpid(child, 0)
        told = pipe.read()
    if not told:
        raise StoreError("The mount's process ended before it served", path=path)
    outcome = msgspec.json.decode(told, type=_Outcome)
    if outcome.kind in _ERRORS:
        raise _ERRORS[outcome.kind](outcome.problem, path=outcome.path, remedy=outcome.remedy)
    if outcome.kind:
        raise InternalError(outcome.problem)


def _detach(tree: MountTree, path: bytes, options: MountOptions, writer: int) -> NoReturn:
    """In the child: leave the terminal, and let a child of our own serve, so that init reaps it."""
    status = 0
    try:
        os.setsid()
        if os.fork() == 0:
            status = 1
            _run_and_report(tree, path, options, writer)
            status = 0
    finally:
        # Never back into the caller's code: it is the parent's to run.
        os._exit(status)


def _leave_everything(writer: int) -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != writer:
            with contextlib.suppress(OSError):
                os.close(int(name))
    # Whatever the caller made of them may have used one of those descriptors.
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    logging.raiseExceptions = False
    logging.getLogger().handlers[:] = [_system_log()]


def _system_log() -> logging.Handler:
    """Where a process without a terminal says what the administrator must know."""
    try:
        handler = logging.handlers.SysLogHandler(
            "/dev/log", logging.handlers.SysLogHandler.LOG_DAEMON
        )
    except OSError:
        return logging.NullHandler()
    handler.ident = f"ssfs[{os.getpid()}]: "
    handler.setLevel(logging.WARNING)
    return handler


def _run_and_report(tree: MountTree, path: bytes, options: MountOptions, writer: int) -> None:
    is_told = False

    def tell(outcome: _Outcome) -> None:
        nonlocal is_told
        if not is_told:
            is_told = True
            os.write(writer, msgspec.json.encode(outcome))
            os.close(writer)

    try:
        _leave_everything(writer)
        _run(tree, path, options, lambda: tell(_Outcome()))
    except SsfsError as error:
        kind = next(k.__name__ for k in type(error).__mro__ if k.__name__ in _ERRORS)
        tell(_Outcome(kind, error.problem, error.path, error.remedy))
    except BaseException:
        tell(_Outcome("InternalError", traceback.format_exc()))
        _log.exception("The mount on %r ended", path)
        raise
