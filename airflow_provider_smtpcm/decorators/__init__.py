"""Functions that become tasks which send mail."""
