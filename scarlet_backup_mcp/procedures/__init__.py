"""What the tools do, one package or module per verb; the steps read top to bottom. Knows no MCP.

The faces import it. Its packages do not import each other in circles.
"""
