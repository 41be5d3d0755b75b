"""PostgreSQL, where rows come from."""
