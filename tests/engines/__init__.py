"""Engines other than the machine's, and the ways to one."""
