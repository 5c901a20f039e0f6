"""The shipped laws over the SQLite store."""

import pytest

from promptlimits.capacity.store import Store
from promptlimits.testing.store_contract import STORE_LAWS


@pytest.mark.parametrize("law", STORE_LAWS, ids=lambda law: law.__name__)
def test_law(law, tmp_path):
    law(Store.open, tmp_path)
