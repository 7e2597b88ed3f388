"""Walks the way to a mail server step by step, up to the first mail and not further, and tells what it met."""
