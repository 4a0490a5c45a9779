"""Tables, time series on a regular grid, and public data; import from the modules themselves."""
