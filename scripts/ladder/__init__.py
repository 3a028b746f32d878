"""The results ladder: its rows and steps, the runner, and the table and plots of the results."""
