"""What a person runs around the commands: reports, summaries, the quickstart."""
