"""Task decorators: `@task.send_mail`."""
