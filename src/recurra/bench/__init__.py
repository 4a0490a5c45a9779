"""`recurra bench`: layers against other frameworks; import from the modules themselves."""
