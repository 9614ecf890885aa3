"""The lists that sites export: what a person watched, read or heard, one module a site.

`events/whole_files.py` imports it. A list is read whole and becomes an Arrow table with a column for each role.
"""
