"""Reports that are one file of HTML, and their charts; import from the modules themselves."""
