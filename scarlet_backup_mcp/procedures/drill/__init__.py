"""Restore drills: restore a backup where nobody uses it, and compare what came back.

`sql` is for dumps, `volume` for whole volumes; `volume_checks` compares what came up with what was copied.
"""
