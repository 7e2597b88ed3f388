"""The command `check`: tests a connection step by step, up to NOOP, and reports each step. It sends no mail."""
