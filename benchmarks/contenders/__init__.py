"""Ways to draft a folder of images, each a script that `benchmarks.drafting` runs.

The argument is the job, a JSON file; the last line of the output is JSON with `seconds`,
`cpu_seconds` (with child processes) and `drafts`. Imports are not in the seconds.
"""
