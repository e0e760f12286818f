"""Installs what a run needs and the machine lacks: the rivals from Debian, the plotting library from PyPI."""

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tools.benchmark.ends import BenchmarkError
from tools.benchmark.machine import run
from tools.benchmark.tool import ROOT

BASE_PACKAGES = (
    *("iproute2", "coreutils", "findutils", "fuse3"),
    *("openssh-client", "openssh-server"),
)


def install_packages(packages: Iterable[str]) -> None:
    """Install those Debian packages that are lacking.

    Raises:
        BenchmarkError: There is no apt, or it failed.
    """
    wanted = dict.fromkeys((*BASE_PACKAGES, *packages))
    if shutil.which("dpkg-query") is None:
        raise BenchmarkError(f"No apt here; please install yourself: {' '.join(wanted)}")
    lacking = [name for name in wanted if not _is_installed(name)]
    if not lacking:
        return
    print(f"installing with apt: {' '.join(lacking)}", file=sys.stderr)
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    # One dead source among many is no reason to stop: the installation tells whether it matters.
    subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *lacking)


def _is_installed(package: str) -> bool:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout == "installed"


def install_python(name: str) -> None:
    """Install a package that the extra `bench` of pyproject.toml names, if it is lacking here.

    Raises:
        BenchmarkError: It failed.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(name)
        return
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())
    named = project["project"]["optional-dependencies"]["bench"]
    wanted = next(each for each in named if each.startswith(name))
    print(f"installing with pip: {wanted}", file=sys.stderr)
    run(sys.executable, "-m", "pip", "install", "--quiet", wanted)
