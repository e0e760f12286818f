"""The C library, with the prototypes it really has: nothing else in ssfs touches ctypes.

python-librsync finds and loads the shared library; its own prototypes date from librsync 0.9 (no
magic in `rs_sig_begin`, a copy callback of another shape) and corrupt memory since 1.0. They hang
on its CDLL object, so ours hang on a second CDLL of the same handle and the two never meet.

The unit here is `Job`: a state machine that is given an input and an output address per `step`. A
job belongs to one thread at a time; ctypes drops the GIL while C runs. The module has no mutable
state but those prototypes.

librsync as Debian builds it keeps its assertions, and a failed one ends the *process*. So peer data
is checked in `commands` and `signature` before C sees it, and what fails here afterwards is our own
mistake (`LibrsyncError` is an `InternalError`).
"""

import ctypes
from types import TracebackType
from typing import NamedTuple, Self

import librsync  # 0.1-5 of 2013, without annotations: pyproject.toml lets mypy pass over it
from typing_extensions import override

from ssfs.delta.basis import Basis
from ssfs.errors import InternalError

STRONG_BYTES = 16
"""Strong sum per block: short ones are CVE-2014-8242, 32 would buy nothing beside a file digest."""

SIGNATURE_MAGIC = 0x72730147
"""RabinKarp rolling sum and BLAKE2 strong sum, librsync 2.2 and later."""

_DONE, _BLOCKED, _IO_ERROR = 0, 1, 100
_LOG_CRITICAL = 2


class _Buffers(ctypes.Structure):
    """rs_buffers_t; void pointers, because c_char_p fields would copy what they point to."""

    _fields_ = [  # type: ignore[mutable-override]  # ctypes wants no other form
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_size_t),
        ("eof_in", ctypes.c_int),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_size_t),
    ]


class _PyBuffer(ctypes.Structure):
    """Py_buffer, part of CPython's stable ABI since 3.11."""

    _fields_ = [  # type: ignore[mutable-override]  # ctypes wants no other form
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


# rs_result rs_copy_cb(void *opaque, rs_long_t pos, size_t *len, void **buf)
_COPY_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_longlong,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_void_p),
)


def _declare() -> ctypes.CDLL:
    """Our own view of the library that python-librsync loaded."""
    loaded: ctypes.CDLL = librsync._librsync  # noqa: SLF001  it has no public name
    lib = ctypes.CDLL(loaded._name, handle=loaded._handle)  # noqa: SLF001  as ctypes documents
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    prototypes = {
        "rs_sig_begin": (pointer, (size, size, number)),
        "rs_loadsig_begin": (pointer, (ctypes.POINTER(pointer),)),
        "rs_build_hash_table": (number, (pointer,)),
        "rs_delta_begin": (pointer, (pointer,)),
        "rs_patch_begin": (pointer, (_COPY_CALLBACK, pointer)),
        "rs_job_iter": (number, (pointer, ctypes.POINTER(_Buffers))),
        "rs_job_free": (number, (pointer,)),
        "rs_free_sumset": (None, (pointer,)),
        "rs_strerror": (ctypes.c_char_p, (number,)),
        "rs_trace_set_level": (None, (number,)),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    # It writes every failed job to stderr; the last words before an abort are worth keeping.
    lib.rs_trace_set_level(_LOG_CRITICAL)
    return lib


_lib = _declare()
_python = ctypes.PyDLL(None)  # not ctypes.pythonapi, whose prototypes are everybody's
_python.PyObject_GetBuffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_python.PyBuffer_Release.argtypes = (ctypes.POINTER(_PyBuffer),)
_python.PyBuffer_Release.restype = None


class LibrsyncError(InternalError):
    """A librsync job failed although its input had been checked.

    Attributes:
        result: librsync's rs_result.
    """

    def __init__(self, result: int) -> None:
        super().__init__(result)
        self.result = result

    @override
    def __str__(self) -> str:
        """The library's own words."""
        text: bytes = _lib.rs_strerror(self.result) or b"unknown result"
        return f"librsync: {text.decode(errors='replace')} ({self.result})"


def _check(result: int) -> None:
    if result != _DONE:
        raise LibrsyncError(result)


class Pinned:
    """The address of a contiguous buffer, which can neither move nor go while this is entered."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = data
        self._buffer = _PyBuffer()

    def __enter__(self) -> Self:
        _python.PyObject_GetBuffer(self._data, ctypes.byref(self._buffer), 0)
        self.address: int = self._buffer.buf or 0
        self.size_bytes: int = self._buffer.len
        return self

    def __exit__(
        self, _1: type[BaseException] | None, _2: BaseException | None, _3: TracebackType | None
    ) -> None:
        _python.PyBuffer_Release(ctypes.byref(self._buffer))


class Step(NamedTuple):
    """What one call into a job did."""

    is_done: bool
    consumed: int
    produced: int


class Job:
    """One running librsync job; `with` frees it on every path.

    `keep` is whatever C refers to and Python must not collect before the job is freed.
    """

    def __init__(self, pointer: int | None, keep: object = None) -> None:
        if not pointer:
            raise MemoryError("librsync could not start a job")
        self._pointer: int | None = pointer
        self._keep = keep
        self._buffers = _Buffers()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _1: type[BaseException] | None, _2: BaseException | None, _3: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the job, finished or not; idempotent."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            _lib.rs_job_free(pointer)
        self._keep = None

    def step(self, source: int, available: int, target: int, room: int, *, is_last: bool) -> Step:
        """Run until input or output space is used up, or the job is done.

        Args:
            source: Address of the input, which librsync copies where it needs it later.
            available: Bytes there.
            target: Address of the output space.
            room: Bytes there; must not be 0.
            is_last: Whether no input follows these bytes.

        Raises:
            LibrsyncError: The job failed, or could go on with neither.
        """
        if self._pointer is None:
            raise InternalError("A librsync job was used after close")
        buffers = self._buffers
        buffers.next_in, buffers.avail_in, buffers.eof_in = source, available, int(is_last)
        buffers.next_out, buffers.avail_out = target, room
        result = _lib.rs_job_iter(self._pointer, ctypes.byref(buffers))
        consumed, produced = available - buffers.avail_in, room - buffers.avail_out
        stuck = is_last and not consumed and not produced
        if result != _DONE and (result != _BLOCKED or stuck):
            raise LibrsyncError(result)
        return Step(result == _DONE, consumed, produced)


class Sums:
    """A signature in librsync's memory, ready for `delta_job`; `close` frees it, once.

    Deltas may run on it in several threads at once: they only read, but for statistics counters
    whose races nobody sees.
    """

    def __init__(self, encoded: bytes | bytearray) -> None:
        """Load a signature that `signature` has checked.

        Raises:
            LibrsyncError: librsync thinks otherwise.
        """
        holder = ctypes.c_void_p()
        job = Job(_lib.rs_loadsig_begin(ctypes.byref(holder)))
        self._pointer: int | None = holder.value
        scratch = ctypes.create_string_buffer(1)  # never written: loading has no output
        try:
            with job, Pinned(encoded) as data:
                target = ctypes.addressof(scratch)
                job.step(data.address, data.size_bytes, target, 1, is_last=True)
            _check(_lib.rs_build_hash_table(self._pointer))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the memory; idempotent. No delta job may be running."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            _lib.rs_free_sumset(pointer)

    def delta_job(self) -> Job:
        """A job from new content to a delta; must end before `close`."""
        if self._pointer is None:
            raise InternalError("A signature was used after close")
        return Job(_lib.rs_delta_begin(self._pointer), keep=self)


def signature_job(block_bytes: int) -> Job:
    """A job from a basis to its signature."""
    return Job(_lib.rs_sig_begin(block_bytes, STRONG_BYTES, SIGNATURE_MAGIC))


class BasisReader:
    """What a patch job calls for a piece of the basis: read straight into the output buffer.

    Not a mapping: that dies of SIGBUS, with the process, when the basis shrinks. An exception must
    not cross C, where it would be printed and forgotten, so it waits in `failure`.
    """

    def __init__(self, basis: Basis, output: memoryview, address: int) -> None:
        self.failure: BaseException | None = None
        self._basis = basis
        self._output = output
        self._address = address

    def read(self, position: int, wanted: int, target: int) -> int:
        """Bytes read to the address `target`.

        Raises:
            EOFError: The basis ends at or before `position`.
            OSError: It cannot be read.
        """
        start = target - self._address
        if start < 0 or start + wanted > len(self._output):
            raise InternalError("librsync asked for a read outside its output buffer")
        got = self._basis.read_at(self._output[start : start + wanted], position)
        if not got:  # librsync would ask again for ever
            raise EOFError("The basis is shorter than it was")
        return got


def patch_job(reader: BasisReader) -> Job:
    """A job from a delta to the new file; when a step fails look into `reader.failure` first."""

    def copy(_opaque: object, position: int, length: dict[int, int], buffer: dict[int, int]) -> int:
        try:
            length[0] = reader.read(position, length[0], buffer[0])
        except BaseException as error:  # noqa: BLE001  all of them wait until C has returned
            reader.failure = error
            return _IO_ERROR
        return _DONE

    callback = _COPY_CALLBACK(copy)
    return Job(_lib.rs_patch_begin(callback, None), keep=callback)
