"""Windows Authentication: who we are, by which protocol, and what ties it to the line. Knows no mail."""
