"""GitHub tells that a release is out; its assets are fetched, verified and published."""
