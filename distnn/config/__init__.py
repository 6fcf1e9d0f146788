"""One table of options: flags, TOML keys, keywords and checks come from it."""
