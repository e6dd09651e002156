"""Databases in which an ordinary role has laid traps for whoever looks at them with more rights."""
