"""The existing backups: their records, which one `latest` means, and which ones retention keeps.

It works with no engine at all.
"""
