"""The tasks: one folder each, neighbours that do not import each other."""
