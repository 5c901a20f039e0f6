"""One layer, exactly: what any prompt of any length can and cannot do."""
