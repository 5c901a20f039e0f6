"""Lines of each room beside its cap: a number to look at. Caps stand in `pyproject.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print a line for each room: lines, cap, modules, and the longest module."""
    caps = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["promptlimits"]["lines"]
    rows = []
    for room, cap in caps.items():
        counts = {path: len(path.read_text().splitlines()) for path in (ROOT / room).rglob("*.py")}
        longest = max(counts, key=lambda path: counts[path])
        over = " over its cap" if sum(counts.values()) > cap else ""
        rows.append(
            f"{room:<28}{sum(counts.values()):>7,} of {cap:>6,} lines in {len(counts):>3} modules, "
            f"the longest {longest.name} ({counts[longest]}){over}"
        )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
