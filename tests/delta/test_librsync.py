"""The C boundary: nothing leaks, nothing is shared, nothing passes through C."""

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssfs.delta import librsync
from ssfs.delta.basis import Basis
from ssfs.delta.commands import MAGIC
from ssfs.delta.errors import DeltaError
from ssfs.delta.patch import apply_delta
from ssfs.delta.segment import SegmentCoder, delta
from ssfs.delta.signature import LoadedSignature, signature
from ssfs.errors import InternalError
from tests.delta.support import decode, encode, load, memory_file, noise


class CountingLib:
    """The library, with its allocations and releases counted."""

    def __init__(self, lib):
        self._lib = lib
        self.calls: dict[str, int] = {}

    def __getattr__(self, name):
        function = getattr(self._lib, name)

        def call(*args):
            self.calls[name] = self.calls.get(name, 0) + 1
            return function(*args)

        return call

    def jobs(self) -> tuple[int, int]:
        begun = sum(count for name, count in self.calls.items() if name.endswith("_begin"))
        return begun, self.calls.get("rs_job_free", 0)

    def sumsets(self) -> tuple[int, int]:
        return self.calls.get("rs_loadsig_begin", 0), self.calls.get("rs_free_sumset", 0)


@pytest.fixture
def counted(monkeypatch):
    lib = CountingLib(librsync._lib)
    monkeypatch.setattr(librsync, "_lib", lib)
    return lib


def test_jobs_and_sums_are_freed_on_every_path(counted):
    basis = noise(100_000)

    def fail(_view: memoryview) -> None:
        raise BrokenPipeError

    def shrink(_view: memoryview) -> None:
        os.ftruncate(fd, 0)

    with memory_file(basis) as fd:
        abandoned = signature(fd, len(basis))
        next(abandoned)
        abandoned.close()
        with load(basis) as loaded:
            decode(fd, encode(loaded, basis[:50_000] + b"new" + basis))
            SegmentCoder(loaded, cpu_clock=iter(range(0, 10**9, 10**6)).__next__).encode(basis)
            made = delta(loaded, basis * 30)
        with pytest.raises(BrokenPipeError):
            apply_delta(fd, made, fail, limit=1 << 30)
        with pytest.raises(DeltaError):
            apply_delta(fd, made, shrink, limit=1 << 30)
    with pytest.raises(DeltaError):
        LoadedSignature.from_fragments([b"garbage"])
    with pytest.raises(librsync.LibrsyncError):
        librsync.Sums(b"garbage")
    begun, freed = counted.jobs()
    assert begun == freed > 6
    loaded_sums, freed_sums = counted.sumsets()
    assert loaded_sums == freed_sums == 2


def test_no_descriptor_is_left_open():
    # What tests before this one have left to the collector is not this one's.
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    basis = noise(50_000)
    with memory_file(basis) as fd, load(basis) as loaded:
        decode(fd, encode(loaded, basis + b"more"))
        with pytest.raises(DeltaError):
            apply_delta(fd, MAGIC, lambda _: None, limit=1)
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_failed_jobs_say_nothing_on_stderr(capfd):
    with pytest.raises(librsync.LibrsyncError, match=r"^librsync: .* \(10\d\)$"):
        librsync.Sums(b"garbage, and enough of it")
    assert capfd.readouterr() == ("", "")


def test_exception_in_the_callback_does_not_pass_through_c(capfd):
    class Broken(librsync.BasisReader):
        def read(self, *_: int) -> int:
            raise KeyboardInterrupt

    out = memoryview(bytearray(100))
    made = MAGIC + b"\x45\x00\x05\x00"
    with librsync.Pinned(out) as target, librsync.Pinned(made) as source:
        reader = Broken(Basis([0]), out, target.address)
        with librsync.patch_job(reader) as job, pytest.raises(librsync.LibrsyncError):
            job.step(source.address, len(made), target.address, 100, is_last=True)
    assert isinstance(reader.failure, KeyboardInterrupt)
    assert capfd.readouterr() == ("", "")


def test_reader_never_writes_outside_its_output():
    out = memoryview(bytearray(100))
    with memory_file(bytes(1000)) as fd, librsync.Pinned(out) as target:
        reader = librsync.BasisReader(Basis([fd]), out, target.address)
        assert reader.read(0, 40, target.address + 60) == 40
        for wanted, offset in ((41, 60), (1, -1), (1, 100), (1 << 63, 0)):
            with pytest.raises(InternalError):
                reader.read(0, wanted, target.address + offset)


def test_closed_job_refuses_to_run():
    job = librsync.signature_job(2048)
    job.close()
    job.close()
    with pytest.raises(InternalError):
        job.step(0, 0, 0, 1, is_last=True)


def test_pinned_buffer_cannot_be_resized():
    data = bytearray(b"abc")
    with librsync.Pinned(data) as pinned:
        assert pinned.size_bytes == 3
        with pytest.raises(BufferError):
            data.append(1)
    data.append(1)


def test_threads_share_one_signature():
    basis = noise(4_000_000)
    start = threading.Barrier(6)

    def round_trip(number: int) -> bool:
        new = basis[: 1000 * number] + noise(999, seed=number) + basis[500 * number :]
        start.wait()
        return all(decode(fd, encode(loaded, new, [700_000])) == new for _ in range(3))

    with load(basis) as loaded, memory_file(basis) as fd, ThreadPoolExecutor(6) as pool:
        assert list(pool.map(round_trip, range(6))) == [True] * 6
