"""The database: what is to do, what was paid for, what was said and what was checked."""
