"""The embedded stack: PostgreSQL, a Momento-compatible server and DynamoDB on loopback (extra `local`).

Nothing but the command line imports it.
"""
