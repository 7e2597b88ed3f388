"""The operators: Send Mail, mail merge, and a condition between tasks."""
