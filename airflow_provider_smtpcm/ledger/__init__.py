"""What a task has sent, kept where its next try finds it: Airflow's task state store."""
