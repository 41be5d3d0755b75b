"""The core as Lambda functions, driven by Step Functions; and ``momento-etl deploy``, which writes what deploys them."""
