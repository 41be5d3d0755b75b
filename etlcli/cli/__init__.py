"""The command line: parse, call the core, render. Imports no SDK."""
