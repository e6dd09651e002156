"""`restore`: a backup comes back beside the live data, is checked, and takes its place in one step.

`service` is the way in; `sql_plan` and `volume_plan` find out what would happen before anybody is asked.
"""
