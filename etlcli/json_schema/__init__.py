"""JSON Schemas (draft 2020-12) of what programs read and write: what commands print, and the config file. Pure.

shapes   the parts that schemas are made of, also of our own dataclasses
details  what stands within summaries: plans, verifications, runs in the cache
summary  the object that every command ends with, and the events before it
config   the config file, from ``etlcli.config.schema``
"""

from etlcli.json_schema.config import config_schema
from etlcli.json_schema.summary import summary_schema

__all__ = ["config_schema", "summary_schema"]
