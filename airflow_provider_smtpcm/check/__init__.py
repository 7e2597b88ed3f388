"""The command `check`: tests a connection step by step, up to NOOP or to a test mail, and reports each step."""
