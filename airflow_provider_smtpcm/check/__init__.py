"""The command `check`: goes through every step before the first mail, reports each, and sends no mail."""
