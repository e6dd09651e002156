"""The face for agents: tools, a resource and a prompt over MCP. It calls procedures and holds no backup logic.

Nothing else imports it, but the command line, which serves it.
"""
