"""How connections are made, and why one fails."""
