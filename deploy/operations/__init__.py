"""The operations of a program: what each one is told, and which shape it gives. What it computes: deploy.reference."""
