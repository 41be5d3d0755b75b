"""The core as Lambda functions, driven by Step Functions; nothing else imports this."""
