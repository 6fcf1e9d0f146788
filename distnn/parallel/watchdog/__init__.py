"""A job that never hangs: watchdog, heartbeat between nodes, death monitor."""
