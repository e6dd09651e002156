"""A call as both faces make it: its line in the audit log, and the alarm when a scheduled one failed."""
