"""The face for people and schedulers: commands, how they run, and how results look on a terminal.

Nothing imports it.
"""
