"""Tasks that send mail."""
