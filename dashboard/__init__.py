"""The QA dashboard: what is good, what is stuck, who agrees with whom, what leaks. Read only."""
