"""The ways from PostgreSQL to DynamoDB that the product is compared with, each a program: ``python -m ... TABLE``."""
