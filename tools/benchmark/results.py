"""What a run of the benchmark found: shapes that are written as JSON, and read again to draw a plot.

Times are seconds, sizes are bytes, memory is the resident size of one process at its largest.
"""

from pathlib import Path

import msgspec


class Reading(msgspec.Struct, frozen=True):
    """One step of one tool, measured once.

    Attributes:
        wall_s: From the start of the tool's program to its end.
        sync_s: How long it took afterwards until the file system had written everything. A tool that
            makes its data durable itself has paid for that in wall_s.
        client_cpu_s: CPU time of all processes of the client's end, user and system.
        server_cpu_s: The same for the server's end.
        peak_rss_bytes: Of the largest process of either end.
        wire_bytes: IP packets over loopback, both ways, with their headers.
        store_bytes: By how much the store grew on the disk; None where nothing is stored.
    """

    wall_s: float
    sync_s: float
    client_cpu_s: float
    server_cpu_s: float
    peak_rss_bytes: int
    wire_bytes: int
    store_bytes: int | None = None


class Cell(msgspec.Struct, frozen=True):
    """One step of one tool: the median of each measure, each for itself, and what it comes from."""

    median: Reading
    readings: list[Reading]


class Machine(msgspec.Struct, frozen=True):
    """What it was measured on."""

    cpus: int
    cpu_model: str
    memory_bytes: int
    kernel: str
    file_system: str
    python: str
    load_before: float


class Dataset(msgspec.Struct, frozen=True):
    """What was backed up, before the first edit."""

    entries: int
    small_files: int
    small_bytes: int
    big_bytes: int


class Limits(msgspec.Struct, frozen=True):
    """What the machine cannot do faster: seconds for the same tree.

    Attributes:
        hard_link_copy_s: `cp -al`: names for a version in which nothing changed.
        encrypted_copy_s: `cp -a`, and AES-256-GCM over as many bytes, encrypted and decrypted.
        walk_s: os.scandir and stat of each entry.
    """

    hard_link_copy_s: float
    encrypted_copy_s: float
    walk_s: float


class Verdict(msgspec.Struct, frozen=True):
    """One promise held against what was measured.

    Attributes:
        step: Where.
        what: The measure and what it is held against, in words.
        limit: At most this, a ratio or bytes.
        value: What was measured; None if it was not.
        met: None if it was not measured.
    """

    step: str
    what: str
    limit: float
    value: float | None
    met: bool | None


class ScalePoint(msgspec.Struct, frozen=True):
    """One size of tree or crowd, one tool, one step.

    Attributes:
        entries: Of each client's tree.
        clients: How many at the same time.
    """

    tool: str
    step: str
    entries: int
    clients: int
    cell: Cell


class Results(msgspec.Struct, frozen=True):
    """A whole run.

    Attributes:
        steps: Medians by step and tool.
        ratios: Those of medians, to rsync: step, tool, measure.
        failures: Where a tool failed or did not do its work, and so has no figures.
    """

    date: str
    quick: bool
    repeat: int
    machine: Machine
    versions: dict[str, str]
    dataset: Dataset | None
    limits: Limits | None
    steps: dict[str, dict[str, Cell]]
    ratios: dict[str, dict[str, dict[str, float]]]
    targets: list[Verdict]
    scale: list[ScalePoint]
    failures: list[str]


def write(results: Results, path: Path) -> None:
    """Write it as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read(path: Path) -> Results:
    """Read what `write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Results)
