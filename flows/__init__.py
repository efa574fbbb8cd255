"""Prefect's part of the project: DVC's graph as one flow run. Nothing below `flows` knows Prefect."""
