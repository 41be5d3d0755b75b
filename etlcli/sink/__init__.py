"""DynamoDB, where items go."""
