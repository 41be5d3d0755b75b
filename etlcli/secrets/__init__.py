"""Secrets that AWS keeps: references in the config, and tokens to log in to RDS with.

store     what references stand for, each asked for once     session  botocore's, with deadlines
asking    Parameter Store's and Secrets Manager's answers    rds_iam  a token for each connection

``store`` imports no SDK until a reference is looked up.
"""
