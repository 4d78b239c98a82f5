"""Kasaga: a saga orchestrator on Kafka and Postgres."""
