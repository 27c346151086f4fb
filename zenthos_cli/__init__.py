"""The `zenthos` command: embedded stack, simulated fleet, replay, benchmarks, demo."""
