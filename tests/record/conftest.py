"""The synthetic record that the tests of the report are drawn from."""

from tests.report.conftest import make_record, record

__all__ = ["make_record", "record"]
