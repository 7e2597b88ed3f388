"""What the arguments of the operators and the notifier have in common."""
