"""Committed messages go on to RabbitMQ and Redis; a forwarder that is down stops nobody."""
