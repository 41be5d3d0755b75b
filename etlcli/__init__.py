"""momento-etl: table rows from PostgreSQL through a named Momento cache into DynamoDB."""

__version__ = "0.1.0"
