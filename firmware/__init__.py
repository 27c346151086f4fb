"""Code that runs on the devices (`device/`, imports nothing of ours)."""
