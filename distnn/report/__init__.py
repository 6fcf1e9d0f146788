"""One page about runs: `record` reads them, the others make of it what the templates show."""
