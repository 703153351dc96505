"""Schema of the preference store, one revision per file, run by `database.migrate`."""
