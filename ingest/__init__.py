"""MQTT to Postgres: nothing is acknowledged before the transaction that stores it has committed."""
