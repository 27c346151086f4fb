"""The device API of hawkBit (DDI v1) over our releases, rollouts and deployments."""
