"""A found prompt on disk, and its confirmation by stock tools."""
