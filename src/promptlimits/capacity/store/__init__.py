"""Every run, step and record on disk: append-only, resumable after a kill, versioned."""

from promptlimits.capacity.store.provenance import canonical_json, provenance, spec_hash
from promptlimits.capacity.store.records import RunRecord
from promptlimits.capacity.store.sqlite import Store

__all__ = ["RunRecord", "Store", "canonical_json", "provenance", "spec_hash"]
