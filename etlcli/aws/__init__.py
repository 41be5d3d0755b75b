"""The core as Lambda functions, driven by Step Functions; and what ``momento-etl deploy`` deploys them with."""
