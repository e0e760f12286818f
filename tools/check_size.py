"""Tell which source files have grown too long to be read in one sitting.

Aim at 300 lines. A file above 500 is named, so that somebody says why or splits it; one above 700
fails the check.
"""

import sys
from pathlib import Path

NAMED_ABOVE_LINES = 500
FAILED_ABOVE_LINES = 700


def main() -> int:
    """Measure every Python file of the project; 1 if one is above the limit."""
    root = Path(__file__).resolve().parent.parent
    too_long = False
    for path in sorted(p for top in ("ssfs", "tests", "tools") for p in (root / top).rglob("*.py")):
        lines = path.read_bytes().count(b"\n")
        if lines > FAILED_ABOVE_LINES:
            too_long = True
            print(f"{path.relative_to(root)}: {lines} lines, above {FAILED_ABOVE_LINES}: split it")
        elif lines > NAMED_ABOVE_LINES:
            print(f"{path.relative_to(root)}: {lines} lines, above {NAMED_ABOVE_LINES}")
    return int(too_long)


if __name__ == "__main__":
    sys.exit(main())
