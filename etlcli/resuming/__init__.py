"""Going on: what an earlier attempt left, behind a broken connection, and with chunks that the cache lost."""
