"""What this program prints: texts of others made safe, and streams whose reader may go away."""
