"""Files of rows in CSV, JSON lines and Parquet, which every command reads alike."""
