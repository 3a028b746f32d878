"""The results ladder: its rows and steps, how they run, and the table and pictures made of them."""
