"""The largest Jacobian norm that a search finds: what no upper limit may lie below."""
