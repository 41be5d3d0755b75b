"""The SAM template: what it makes, and that nobody may do more than it takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import etlcli.aws
from etlcli.config.document import CONFIG_VARIABLE, FILE_NAME
from etlcli.sink import sweep, writer
from tests.aws.rights import Template

PATH = Path(etlcli.aws.__file__).with_name("template.yaml")
FUNCTIONS = {
    "Plan": "plan",
    "FromDbToCache": "from_db_to_cache",
    "FromCacheToDynamoDb": "from_cache_to_dynamo_db",
    "Finish": "finish",
    "Abort": "abort",
}

BARE = {"Table": "movies", "DestinationTable": "films", "CreateTables": "false"}
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1-2"
EVERYTHING = {
    "Table": "movies",
    "DestinationTable": "films",
    "Replace": "true",
    "SourceParameter": "/etl/url",
    "SourceSecret": "source",
    "PasswordParameter": "/etl/password",
    "PasswordSecret": "password",
    "CacheParameter": "/etl/key",
    "CacheSecret": "cache",
    "MaskParameter": "/etl/mask",
    "MaskSecret": "mask",
    "SecretsKey": KEY,
    "RdsUser": "db-ABC/etl",
    "SubnetIds": "subnet-1,subnet-2",
    "SecurityGroupIds": "sg-1",
    "ReservedConcurrency": "8",
    "Schedule": "rate(1 day)",
    "AlarmTopic": "arn:aws:sns:eu-west-1:123456789012:alarms",
}

DESTINATION, STATE = "table/films", "table/momento-etl-state"

LOGS = {("logs:CreateLogStream", "FunctionLogs.Arn"), ("logs:PutLogEvents", "FunctionLogs.Arn")}
KEEPS_STATE = {
    (f"dynamodb:{action}", STATE)
    for action in ("DescribeTable", "GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem")
}
CREATES_STATE = {(f"dynamodb:{action}", STATE) for action in ("CreateTable", "DescribeTimeToLive", "UpdateTimeToLive")}
DESCRIBES = {("dynamodb:DescribeTable", DESTINATION)}
CREATES = {
    (f"dynamodb:{action}", DESTINATION)
    for action in ("CreateTable", "DescribeTimeToLive", "UpdateTimeToLive", "UpdateContinuousBackups", "TagResource")
} | {(f"dynamodb:{action}", STATE) for action in ("CreateTable", "DescribeTimeToLive", "UpdateTimeToLive")}
WRITES = {("dynamodb:BatchWriteItem", DESTINATION)}
SWEEPS = {(f"dynamodb:{action}", DESTINATION) for action in ("Scan", "UpdateItem", "DeleteItem")}
OPENS_CACHE = {
    ("ssm:GetParameter", "parameter/etl/key"),
    ("secretsmanager:GetSecretValue", "secret:cache-??????"),
    ("kms:Decrypt", KEY),
}
OPENS_SOURCE = {
    ("ssm:GetParameter", "parameter/etl/url"),
    ("secretsmanager:GetSecretValue", "secret:source-??????"),
    ("ssm:GetParameter", "parameter/etl/password"),
    ("secretsmanager:GetSecretValue", "secret:password-??????"),
    ("ssm:GetParameter", "parameter/etl/mask"),
    ("secretsmanager:GetSecretValue", "secret:mask-??????"),
    ("rds-db:connect", "dbuser:db-ABC/etl"),
    ("kms:Decrypt", KEY),
}
IN_VPC = {("policy/service-role/AWSLambdaVPCAccessExecutionRole", "*")}

LOG_DELIVERIES = {
    (f"logs:{action}", "*")
    for action in (
        *("CreateLogDelivery", "GetLogDelivery", "UpdateLogDelivery", "DeleteLogDelivery", "ListLogDeliveries"),
        *("PutResourcePolicy", "DescribeResourcePolicies", "DescribeLogGroups"),
    )
}
"""AWS takes these for all resources only: its documentation of Step Functions, "Logging in CloudWatch Logs"."""

DRIVES = {
    *(("lambda:InvokeFunction", f"{name}.Arn") for name in FUNCTIONS),
    ("states:StartExecution", "Etl"),
    *(
        (f"states:{action}", f"execution:Etl.Name{children}")
        for action in ("DescribeExecution", "StopExecution")
        for children in (":*", "/*")
    ),
}


def test_with_everything_asked_for_each_role_has_these_rights_and_no_other() -> None:
    assert Template(PATH, EVERYTHING).rights() == {
        "PlanRole": LOGS | KEEPS_STATE | DESCRIBES | CREATES | OPENS_SOURCE | OPENS_CACHE | IN_VPC,
        "FromDbToCacheRole": LOGS | KEEPS_STATE | OPENS_SOURCE | OPENS_CACHE | IN_VPC,
        "FromCacheToDynamoDbRole": LOGS | KEEPS_STATE | DESCRIBES | CREATES | WRITES | OPENS_CACHE,
        "FinishRole": LOGS | KEEPS_STATE | DESCRIBES | SWEEPS | OPENS_CACHE,
        "AbortRole": LOGS | KEEPS_STATE,
        "EtlRole": DRIVES | LOG_DELIVERIES,
        "EtlScheduleRole": {("states:StartExecution", "Etl")},
    }


def test_with_nothing_asked_for_each_role_has_these_rights_and_no_other() -> None:
    assert Template(PATH, BARE).rights() == {
        "PlanRole": LOGS | KEEPS_STATE | DESCRIBES,
        "FromDbToCacheRole": LOGS | KEEPS_STATE,
        "FromCacheToDynamoDbRole": LOGS | KEEPS_STATE | DESCRIBES | WRITES,
        "FinishRole": LOGS | KEEPS_STATE | DESCRIBES,
        "AbortRole": LOGS | KEEPS_STATE,
        "EtlRole": DRIVES | LOG_DELIVERIES,
    }


@pytest.mark.parametrize("given", [BARE, EVERYTHING], ids=["bare", "everything"])
def test_no_action_and_no_resource_is_a_wildcard_but_where_aws_has_nothing_else(given: dict[str, str]) -> None:
    for role, rights in Template(PATH, given).rights().items():
        for action, resource in rights - LOG_DELIVERIES - IN_VPC:
            assert "*" not in action, (role, action)
            assert resource.count("*") == resource.startswith("execution:Etl.Name"), (role, action, resource)


@pytest.mark.parametrize("asked", sorted(EVERYTHING.keys() - BARE.keys()))
def test_one_right_asked_for_brings_no_other_secret_or_table_along(asked: str) -> None:
    """Whatever one parameter adds is about what it names."""
    bare, more = (Template(PATH, given).rights() for given in (BARE, {**BARE, asked: EVERYTHING[asked]}))
    added = {right for role, rights in more.items() for right in rights - bare.get(role, set())}
    expected = {
        "Replace": SWEEPS,
        "SourceParameter": {("ssm:GetParameter", "parameter/etl/url")},
        "SourceSecret": {("secretsmanager:GetSecretValue", "secret:source-??????")},
        "PasswordParameter": {("ssm:GetParameter", "parameter/etl/password")},
        "PasswordSecret": {("secretsmanager:GetSecretValue", "secret:password-??????")},
        "CacheParameter": {("ssm:GetParameter", "parameter/etl/key")},
        "CacheSecret": {("secretsmanager:GetSecretValue", "secret:cache-??????")},
        "MaskParameter": {("ssm:GetParameter", "parameter/etl/mask")},
        "MaskSecret": {("secretsmanager:GetSecretValue", "secret:mask-??????")},
        "RdsUser": {("rds-db:connect", "dbuser:db-ABC/etl")},
        "SubnetIds": IN_VPC,
        "Schedule": {("states:StartExecution", "Etl")},
    }
    assert added == expected.get(asked, set())


def test_what_the_code_asks_of_dynamodb_is_allowed() -> None:
    rights = Template(PATH, EVERYTHING).rights()
    assert (f"dynamodb:{writer.ACTION}", DESTINATION) in rights["FromCacheToDynamoDbRole"]
    assert {(f"dynamodb:{action}", DESTINATION) for action in sweep.ACTIONS} <= rights["FinishRole"]


@pytest.mark.parametrize("given", [BARE, EVERYTHING], ids=["bare", "everything"])
def test_a_role_is_taken_by_its_service_alone(given: dict[str, str]) -> None:
    template = Template(PATH, given)
    services = {"EtlRole": "states", "EtlScheduleRole": "scheduler"}
    for role, about in template.resources("AWS::IAM::Role").items():
        (statement,) = about["AssumeRolePolicyDocument"]["Statement"]
        service = services.get(role, "lambda")
        assert statement["Principal"] == {"Service": f"{service}.amazonaws.com"}
        assert statement["Action"] == "sts:AssumeRole"
        # A function's role is named by that function; the two others could be lent to somebody else's.
        own = {} if service == "lambda" else {"StringEquals": {"aws:SourceAccount": "account"}}
        assert statement.get("Condition", {}) == own


def test_functions_have_roles_of_the_template_and_nothing_in_their_environment() -> None:
    template = Template(PATH, EVERYTHING)
    shared = template.content["Globals"]["Function"]
    assert shared["Environment"] == {"Variables": {CONFIG_VARIABLE: FILE_NAME}}
    functions = template.resources("AWS::Serverless::Function")
    assert {name: about["Handler"] for name, about in functions.items()} == {
        name: f"etlcli.aws.handlers.{handler}" for name, handler in FUNCTIONS.items()
    }
    for name, about in functions.items():
        assert about["Role"] == f"{name}Role.Arn"
        assert not about.keys() & {"Policies", "Environment", "Tracing", "FunctionUrlConfig", "Events"}


def test_only_what_reads_postgresql_is_in_the_vpc() -> None:
    inside, outside = (Template(PATH, given).resources("AWS::Serverless::Function") for given in (EVERYTHING, BARE))
    assert {name for name, about in inside.items() if "VpcConfig" in about} == {"Plan", "FromDbToCache"}
    assert not [name for name, about in outside.items() if "VpcConfig" in about]


def test_concurrency_is_kept_for_the_workers_alone() -> None:
    kept = "ReservedConcurrentExecutions"
    some, none = (Template(PATH, given).resources("AWS::Serverless::Function") for given in (EVERYTHING, BARE))
    assert {name for name, about in some.items() if kept in about} == {"FromDbToCache", "FromCacheToDynamoDb"}
    assert not [name for name, about in none.items() if kept in about]


def test_a_schedule_starts_the_job_and_can_rest() -> None:
    given = {**EVERYTHING, "Table": "Órdenes del día", "ScheduleState": "DISABLED"}
    (schedule,) = Template(PATH, given).resources("AWS::Scheduler::Schedule").values()
    assert schedule["ScheduleExpression"] == "rate(1 day)"
    assert schedule["State"] == "DISABLED"
    assert json.loads(schedule["Target"]["Input"]) == {"table": "Órdenes del día", "concurrency": 8}
    assert not Template(PATH, BARE).resources("AWS::Scheduler::Schedule")


def test_no_name_of_a_job_gets_out_of_the_input_that_it_stands_in() -> None:
    pattern = Template(PATH, BARE).content["Parameters"]["Table"]["AllowedPattern"]
    for name in ('x", "query": "drop', "x\\", '"Order Details"', "two\nlines"):
        assert not re.fullmatch(pattern, name), name
    assert re.fullmatch(pattern, "sales.Order Details")


def test_alarms_go_to_the_topic_if_there_is_one() -> None:
    for given in (EVERYTHING, BARE):
        alarms = Template(PATH, given).resources("AWS::CloudWatch::Alarm")
        assert {about["MetricName"] for about in alarms.values()} == {
            "ExecutionsFailed",
            "ExecutionsTimedOut",
            "ExecutionThrottled",
        }
        for about in alarms.values():
            assert about["Dimensions"] == [{"Name": "StateMachineArn", "Value": "Etl"}]
            assert about.get("AlarmActions") == ([given["AlarmTopic"]] if "AlarmTopic" in given else None)


def test_cfn_lint_finds_nothing(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from cfnlint.runner import main; main()", "--format", "parseable"]
    environment = {"HOME": str(tmp_path), "AWS_DEFAULT_REGION": "eu-west-1"}
    linted = subprocess.run([*program, str(PATH)], env=environment, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
    # It does look: a right on a resource that is not there is found.
    broken = tmp_path / "template.yaml"
    broken.write_text(PATH.read_text(encoding="utf-8").replace("!GetAtt FunctionLogs.Arn", "!GetAtt NoLogs.Arn"))
    linted = subprocess.run([*program, str(broken)], env=environment, capture_output=True, text=True, check=False)
    assert "NoLogs" in linted.stdout, linted
