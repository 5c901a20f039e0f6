"""What proving a checkpoint's norms takes: rounding bounded beforehand against exact products.

    python benchmarks/norm_proofs.py                  SmolLM2-135M, two minutes on a quiet core
    python benchmarks/norm_proofs.py --model MODEL    another one that `certify` reads
    python benchmarks/norm_proofs.py --json           JSON on standard output

A certificate is made and its norms are proved again as `promptlimits check --model` does, matrix by
matrix in turn: by `checker.matrices`, and by its slow twin of the tests, which cuts matrices into
integers. Then each limit is lowered by a part in a million, which must be refused wherever the
matrix is not 0. Seconds are of processor time, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.reference import norm_twin

from promptlimits.certificates import checked
from promptlimits.checker import weights
from promptlimits.checker.matrices import Near, proves_norm_at_most
from promptlimits.lipschitz.checkpoint.model_ceiling import model_ceiling, read_facts
from promptlimits.nets.files.folder import weight_files, weights_hash
from promptlimits.nets.load.blocks import open_checkpoint
from promptlimits.nets.load.locate import locate

LOWERED = 1 - Fraction(1, 10**6)


@dataclass(kw_only=True)
class Taken:
    """Seconds of processor time, and what was proved."""

    start: float = field(default_factory=time.process_time)  # imports, in front of anything else
    certificate: float = 0.0  # proving the limits in the first place
    rest: float = 0.0  # of `check`: hash, reading, folding, formulas
    proofs: float = 0.0
    exact_products: float = 0.0
    lowered: float = 0.0
    matrices: int = 0
    proved: int = 0
    proved_by_exact_products: int = 0
    not_zero: int = 0
    lowered_and_proved: int = 0

    def prove(self, limit: Fraction, matrix: Near | Any) -> bool:
        """In place of `proves_norm_at_most`: both ways, and the lowered limit."""
        near = matrix if isinstance(matrix, Near) else Near(matrix)
        began = time.process_time()
        proved = proves_norm_at_most(limit, near)
        ours = time.process_time()
        twin = norm_twin.proves_norm_at_most(limit - Fraction(near.radius), near.center)
        theirs = time.process_time()
        not_zero = bool(near.center.any())
        self.lowered_and_proved += not_zero and proves_norm_at_most(limit * LOWERED, near)
        self.lowered += time.process_time() - theirs
        self.proofs += ours - began
        self.exact_products += theirs - ours
        self.matrices += 1
        self.proved += proved
        self.proved_by_exact_products += twin
        self.not_zero += not_zero
        return proved

    def record(self) -> dict[str, Any]:
        """All of it, and the whole command by both ways."""
        others = self.start + self.rest
        return asdict(self) | {
            "check": others + self.proofs,
            "check_by_exact_products": others + self.exact_products,
            "ratio": (others + self.exact_products) / (others + self.proofs),
            "ratio_of_proofs": self.exact_products / self.proofs,
        }


def measured(model: str) -> dict[str, Any]:
    """Certify a model and check the certificate."""
    taken = Taken()
    began = time.process_time()
    folder = locate(model).directory
    ceiling = model_ceiling(
        read_facts(open_checkpoint(folder, name=model)),
        weights_sha256=weights_hash(weight_files(folder)),
        values="float32",
        prompt_tokens=20,
        tokens=1,
        radius=Fraction(1),
        eps=Fraction(1, 100),
    )
    certificate = ceiling.certificate()
    between = time.process_time()
    taken.certificate = between - began
    weights.proves_norm_at_most = taken.prove
    checked(certificate, weights=folder, on_progress=lambda line: print(line, file=sys.stderr))
    taken.rest = time.process_time() - between
    taken.rest -= taken.proofs + taken.exact_products + taken.lowered
    return taken.record()


def main() -> None:
    """Print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m", help="a checkpoint's name or directory")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    found = measured(options.model)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print("| proofs | seconds | whole check | proved |\n|---|---|---|---|")
    total = found["matrices"]
    for name, proofs, check, proved in (
        ("rounding bounded beforehand", "proofs", "check", "proved"),
        ("exact products", "exact_products", "check_by_exact_products", "proved_by_exact_products"),
    ):
        print(f"| {name} | {found[proofs]:.1f} | {found[check]:.1f} | {found[proved]} of {total} |")
    faster = f"{found['ratio']:.1f} times as fast, its proofs {found['ratio_of_proofs']:.1f} times"
    lowered = f"of {found['not_zero']} limits lowered by 10^-6 {found['lowered_and_proved']}"
    print(
        f"The check is {faster}; {lowered} were proved. "
        f"To find the limits took {found['certificate']:.1f} s."
    )


if __name__ == "__main__":
    main()
