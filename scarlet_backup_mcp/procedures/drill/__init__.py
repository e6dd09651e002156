"""A restore drill: a backup is restored where nobody uses it, and what came back is compared.

`sql` is for dumps, `volume` for whole volumes; `volume_checks` compares what came up with what was copied.
"""
