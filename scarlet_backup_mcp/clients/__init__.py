"""The MCP clients of this machine, and our server's entry in their configuration files.

Files are edited as text and checked by parsing: all that is not our entry stays as it is, byte by byte, or nothing is
changed.
"""
