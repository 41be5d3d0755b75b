"""Configuration: flags, environment and a TOML file into frozen dataclasses. Pure: no network and no SDK.

document  finds and reads the file         schema   every option, described once
outline   its known sections and keys      kinds    what an option takes, and how it is read
load      file and environment, merged     names    the rules for names, and default names
references  values that stand for others   lookup   what AWS keeps, looked up once a section is used
connections  what is configured, what a command needs, Momento's kinds of access
jobs      one job, with flags, section and defaults
choose    which jobs: one, several, all of the config's, or a schema's tables
"""

from etlcli.config.choose import Choice, Request, check_request, choose, for_each
from etlcli.config.connections import (
    Connection,
    connect_embedded,
    connection,
    local_notice,
    momento_access,
    require,
    use_embedded,
    with_source,
)
from etlcli.config.example import example_file
from etlcli.config.jobs import IncrementalFlags, JobFlags, JobOptions, resolve_job, resolve_options
from etlcli.config.load import load_settings
from etlcli.config.lookup import look_up, used
from etlcli.config.momento import MomentoAccess
from etlcli.config.references import Reference, Resolver, Surroundings
from etlcli.config.schema import (
    RDS_IAM,
    SECTIONS,
    CacheSettings,
    DestinationSettings,
    Option,
    PriceSettings,
    SourceSettings,
    StateSettings,
    TableSettings,
    option_named,
)
from etlcli.config.settings import Half, Origin, Settings, create_options
from etlcli.config.suggest import did_you_mean
from etlcli.config.units import format_duration, format_size, parse_duration, parse_share, parse_size

__all__ = [
    "RDS_IAM",
    "SECTIONS",
    "CacheSettings",
    "Choice",
    "Connection",
    "DestinationSettings",
    "Half",
    "IncrementalFlags",
    "JobFlags",
    "JobOptions",
    "MomentoAccess",
    "Option",
    "Origin",
    "PriceSettings",
    "Reference",
    "Request",
    "Resolver",
    "Settings",
    "SourceSettings",
    "StateSettings",
    "Surroundings",
    "TableSettings",
    "check_request",
    "choose",
    "connect_embedded",
    "connection",
    "create_options",
    "did_you_mean",
    "example_file",
    "for_each",
    "format_duration",
    "format_size",
    "load_settings",
    "local_notice",
    "look_up",
    "momento_access",
    "option_named",
    "parse_duration",
    "parse_share",
    "parse_size",
    "require",
    "resolve_job",
    "resolve_options",
    "use_embedded",
    "used",
    "with_source",
]
