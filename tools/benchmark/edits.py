"""What people do to the tree between two nights, and what goes wrong with a restored one.

Every edit is made of a seed: the same seed does the same to the same tree.
"""

import os
import random
import sqlite3
from pathlib import Path

from tools.benchmark.dataset import BIG, DATABASE, IMAGES, SMALL

CHANGED_PART = 0.01
GONE_PART = 0.002
NEW_PART = 0.002
OVERWRITTEN_BLOCKS = 64
BLOCK_BYTES = 4096
INSERTED_BYTES = 100
UPDATED_ROWS_PART = 0.005
DAMAGED_PART = 0.005


def regular_files(tree: Path) -> list[Path]:
    """All regular files below a directory, in a fixed order."""
    found = []
    for directory, below, names in os.walk(tree):
        below.sort()
        found += [
            Path(directory, name)
            for name in sorted(names)
            if not os.path.islink(f"{directory}/{name}")
        ]
    return found


def one_day(source: Path, seed: int) -> None:
    """One day's edits of small files, both images and the database."""
    chance = random.Random(seed)
    files = regular_files(source / SMALL)
    chance.shuffle(files)
    changed = max(1, int(len(files) * CHANGED_PART))
    gone = max(1, int(len(files) * GONE_PART))
    for path in files[:changed]:
        _rewrite(path, chance)
    for path in files[changed : changed + gone]:
        path.unlink()
    for number, path in enumerate(files[-max(1, int(len(files) * NEW_PART)) :]):
        content = chance.randbytes(len(path.read_bytes()))
        path.with_name(f"new-{seed}-{number}").write_bytes(content)
    image = find_big(source) / IMAGES[0]
    overwrite_blocks(image, chance)
    _insert_at_start(find_big(source) / IMAGES[1], chance)
    _update_rows(find_big(source) / DATABASE, chance)


def _rewrite(path: Path, chance: random.Random) -> None:
    """Save a file anew, with some lines more, as an editor does: the same inode, another size."""
    content = path.read_bytes()
    at = chance.randrange(len(content) + 1)
    path.write_bytes(content[:at] + chance.randbytes(chance.randrange(1, 200)) + content[at:])


def overwrite_blocks(image: Path, chance: random.Random) -> None:
    """Write random blocks at random places of a file, which keeps its size."""
    blocks = max(1, image.stat().st_size // BLOCK_BYTES)
    with open(image, "r+b") as file:
        for _ in range(min(OVERWRITTEN_BLOCKS, blocks)):
            file.seek(chance.randrange(blocks) * BLOCK_BYTES)
            file.write(chance.randbytes(BLOCK_BYTES))


def _insert_at_start(image: Path, chance: random.Random) -> None:
    fresh = image.with_name("fresh")
    with open(image, "rb") as old, open(fresh, "wb") as new:
        new.write(chance.randbytes(INSERTED_BYTES))
        while piece := old.read(1 << 20):
            new.write(piece)
    fresh.rename(image)


def _update_rows(database: Path, chance: random.Random) -> None:
    connection = sqlite3.connect(database)
    with connection:
        (rows,) = connection.execute("SELECT count(*) FROM note").fetchone()
        chosen = chance.sample(range(1, rows + 1), max(1, int(rows * UPDATED_ROWS_PART)))
        connection.executemany(
            "UPDATE note SET text = ? WHERE id = ?",
            ((chance.randbytes(200), number) for number in chosen),
        )
    connection.close()


def find_big(source: Path) -> Path:
    """Where the images are now: a reorganisation renames their directory."""
    return next(each for each in sorted(source.iterdir()) if each.name.startswith(BIG))


def reorganise(source: Path, seed: int) -> None:
    """Rename the directory of the images, and a directory with many small files."""
    find_big(source).rename(source / f"{BIG}-{seed}")
    places = sorted(each for each in (source / SMALL).glob("*/*/*") if each.is_dir())
    counts = {place: sum(len(names) for _, _, names in os.walk(place)) for place in places}
    total = sum(counts.values())
    # The largest that is at most a third of all: a subtree, not the tree.
    fitting = [place for place in places if counts[place] * 3 <= total] or places
    chosen = max(fitting, key=lambda place: (counts[place], str(place)))
    chosen.rename(chosen.with_name(f"moved-{seed}-{chosen.name[-40:]}"))


def damage(tree: Path, seed: int) -> None:
    """Hurt a restored tree so that size or time shows it: files gone, cut, overwritten; blocks of an image."""
    chance = random.Random(seed)
    files = regular_files(tree / SMALL)
    chance.shuffle(files)
    for number, path in enumerate(files[: max(3, int(len(files) * DAMAGED_PART))]):
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            os.truncate(path, path.stat().st_size // 2)
        else:
            path.write_bytes(chance.randbytes(path.stat().st_size))
    overwrite_blocks(find_big(tree) / IMAGES[0], chance)
