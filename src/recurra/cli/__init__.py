"""The command line: one command, one file; each parses, calls a function and prints."""
