"""The result of a query as a table in a body and as files: CSV, Excel, Parquet. Pure: no Airflow, no network."""
