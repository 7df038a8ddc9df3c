"""What validation knows of the domain: settings that contradict each other."""
