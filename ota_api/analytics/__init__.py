"""What a farm was like over some days, from both databases as one answer."""
