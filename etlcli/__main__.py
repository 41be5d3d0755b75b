"""`python -m etlcli` is `momento-etl`."""

from etlcli.cli.main import main

main()
