"""Where a step's time goes, what the machine allows, and what to change."""
