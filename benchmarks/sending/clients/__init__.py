"""The contenders, each a process of its own. The Python ones answer orders (`host`), the others take words."""
