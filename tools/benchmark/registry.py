"""The tools there are, by name, in the order of tables."""

from collections.abc import Mapping

from tools.benchmark.ours import Ssfs
from tools.benchmark.rivals import Borg, Restic, Rsync
from tools.benchmark.tool import Tool

TOOLS: Mapping[str, type[Tool]] = {each.name: each for each in (Ssfs, Rsync, Borg, Restic)}
