"""What arrived, byte for byte, by hour of receipt."""
