"""What `MailMergeOperator` is made of: rows, templates over them, mails, the tally and what it means."""
