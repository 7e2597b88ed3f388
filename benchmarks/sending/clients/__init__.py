"""The contenders, each a process of its own. Those in Python run an `Order` (`host`), the others have arguments."""
