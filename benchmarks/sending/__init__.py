"""What sending mail costs with this package and with its alternatives, measured side by side; `make bench` runs it."""
